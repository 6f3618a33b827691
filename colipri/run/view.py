"""colipri_view: scans, scores and heat maps in the browser."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from colipri.common.errors import EXIT_OK, ColipriError
from colipri.run.cli import make_parser, run_command
from colipri.run.inference_options import add_model_options, make_predictor
from colipri.run.next_command import command_line

if TYPE_CHECKING:
    from colipri.inference.predictor import ColipriPredictor
    from colipri.viewer.application import Application
    from colipri.viewer.scores import ZeroShot
    from colipri.viewer.server import ViewerServer

DESCRIPTION = """\
Look at scans in the browser, and at what a model says of them.

    colipri_view -m MODEL -i SCANS
    colipri_view -m MODEL -i DICOM_FOLDER --index INDEX
    colipri_view -m MODEL --port 8765 --no_browser     then: ssh -L 8765:localhost:8765 MACHINE

The page shows three planes with windows in HU, the probabilities of the model's findings (and those
of the heads that colipri_probe wrote beside the model, calibrated), where any finding that you type
is seen, the most similar scans of an index, and a draft of the report if the model writes. The page
can open further scans. The server listens on 127.0.0.1 only, answers only with the token of its
address, and nothing leaves this machine. Ctrl-C ends it; uploaded scans are deleted then.
For research; not a medical device.
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""
    parser = make_parser("colipri_view", DESCRIPTION)
    add_model_options(parser)
    parser.add_argument("-i", metavar="INPUT", help="image, folder of images, or DICOM folder")
    parser.add_argument(
        "-f",
        nargs="+",
        metavar="FINDING",
        help="findings to score, in any words (default: those of the training data)",
    )
    parser.add_argument(
        "--prompts",
        default="short",
        metavar="STYLE",
        help="sentence, present, short, ensemble, or a JSON file (default: %(default)s)",
    )
    parser.add_argument(
        "--thresholds",
        metavar="FILE.json",
        help="result of colipri_zero_shot -d: its thresholds mark the findings that are present",
    )
    parser.add_argument(
        "--head",
        nargs="*",
        metavar="FILE",
        help="heads of colipri_probe (default: those in the folder heads beside the checkpoint; "
        "without a file: none)",
    )
    parser.add_argument(
        "--index",
        metavar="FOLDER",
        help="of colipri_index, or features of colipri_encode -d: known scans that are compared",
    )
    parser.add_argument(
        "--writer", metavar="FOLDER", help="of colipri_train_writer: writes report drafts"
    )
    parser.add_argument(
        "--port", type=int, default=0, metavar="N", help="of the page (default: a free one)"
    )
    parser.add_argument(
        "--no_browser", action="store_true", help="print the address without opening a browser"
    )
    parser.add_argument(
        "--max_upload",
        type=int,
        default=2048,
        metavar="MB",
        help="largest scan that the page may send (default: %(default)s)",
    )
    return parser


def view(options: argparse.Namespace) -> int:
    """Bind the port, load the model, serve until Ctrl-C."""
    if options.max_upload < 1:
        raise ColipriError("--max_upload must be at least 1 (MB)")
    from colipri.viewer.server import ViewerServer

    server = ViewerServer(options.port)  # before the model, which takes longer
    try:
        server.application = application = _application(options)
        try:
            _serve(server, options.no_browser)
        finally:
            application.close()
    finally:
        server.server_close()
    return EXIT_OK


def _serve(server: ViewerServer, no_browser: bool) -> None:
    import signal
    import webbrowser

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    try:
        print(f"The viewer is at {server.url}", flush=True)
        print("Ctrl-C ends it. Whoever has this address can see the scans.", flush=True)
        if not no_browser and not webbrowser.open(server.ticket_url()):
            print("No browser was found; open the address yourself.", flush=True)
        server.serve_forever(poll_interval=0.5)
    except KeyboardInterrupt:
        print("\nThe viewer has ended.")


def _application(options: argparse.Namespace) -> Application:
    from colipri.inference.inputs import find_images
    from colipri.viewer.analysis import Analysis
    from colipri.viewer.application import Application
    from colipri.viewer.drafts import draft_writers
    from colipri.viewer.neighbours import open_known_scans
    from colipri.viewer.scans import ScanList
    from colipri.viewer.scores import load_heads
    from colipri.viewer.uploads import UploadArea

    if options.i is not None and not Path(options.i).exists():
        raise ColipriError(f"there is no image or folder {options.i}")
    predictor = make_predictor(options)
    images = [] if options.i is None else find_images(options.i, predictor.num_channels)
    known = None if options.index is None else open_known_scans(Path(options.index), predictor)
    writer = None if options.writer is None else Path(options.writer)
    analysis = Analysis(
        predictor,
        ScanList(images),
        _zero_shot(options, predictor),
        load_heads(predictor, options.m, options.head),
        known,
        draft_writers(predictor, writer),
    )
    trained_on = predictor.plans.dataset_name
    words = ("-m", options.m, "-d", trained_on, "--split", "train", "--reports", "-o", "INDEX")
    how = command_line("colipri_index", *words)
    largest = options.max_upload << 20
    return Application(analysis, UploadArea(largest), largest, how)


def _zero_shot(options: argparse.Namespace, predictor: ColipriPredictor) -> ZeroShot | None:
    from colipri.viewer.scores import ZeroShot

    if predictor.image_only is not None:
        if options.f is not None or options.thresholds is not None:
            raise ColipriError(
                f"{predictor.source} has no text encoder: leave out -f, --thresholds"
            )
        return None
    findings = predictor.plans.findings if options.f is None else options.f
    thresholds = None if options.thresholds is None else Path(options.thresholds)
    return ZeroShot(predictor, findings, options.prompts, thresholds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of colipri_view."""
    return run_command(build_parser(), view, arguments)
