"""Reports written with a cache are those that whole passes would write."""

import itertools
import math

import pytest
import torch

from colipri.architectures.generation import GenerationSettings, generate
from colipri.architectures.report_decoder import ReportDecoder
from colipri.common.errors import ColipriError

VOCABULARY, BEGIN, END = 9, 2, 3


@pytest.fixture(scope="module")
def decoder():
    """Random, in double precision, with logits far enough apart to say something."""
    generator = torch.Generator().manual_seed(3)  # initialisation draws differ between versions
    model = ReportDecoder(VOCABULARY, 12, 6, 12, 2, 2).double().eval()
    for _, parameter in sorted(model.named_parameters()):
        if parameter.ndim > 1:
            parameter.data.copy_(0.24 * torch.randn(parameter.shape, generator=generator))
    model.position_embeddings.weight.data.mul_(8)  # or the last word would always come again
    return model


def image(batch=6, tokens=5):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(batch, tokens, 6, generator=generator, dtype=torch.float64)


def whole_logits(decoder, tokens, written, mask=None):
    """Logits of the next token by a whole pass, nothing kept."""
    ids = torch.tensor([[BEGIN, *written]])
    with torch.no_grad():
        return decoder.logits(decoder(ids, tokens, mask))[0, -1]


def uncached(decoder, tokens, choose, limit=12, mask=None):
    written = []
    while len(written) < limit - 1:
        token = int(choose(whole_logits(decoder, tokens, written, mask)))
        if token == END:
            break
        written.append(token)
    return written


def test_every_step_of_the_cache_equals_a_whole_pass(decoder):
    tokens = image(2)
    mask = torch.tensor([[True] * 5, [True, True, False, True, False]])
    ids = torch.randint(VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = decoder.logits(decoder(ids, tokens, mask))
        cache = decoder.start(tokens, mask)
        for place in range(12):
            assert cache.length == place
            assert torch.allclose(decoder.step(ids[:, place], cache), whole[:, place])


def test_greedy_equals_whole_passes_for_reports_of_any_length(decoder):
    tokens = image(12)
    reports = generate(decoder, tokens, None, BEGIN, END, GenerationSettings())
    expected = [uncached(decoder, tokens[row : row + 1], torch.argmax) for row in range(12)]
    assert reports == expected
    assert len({len(report) for report in reports}) > 1  # some end early and leave the batch
    assert len({token for report in reports for token in report}) > 4


def test_fillers_of_the_image_do_not_matter(decoder):
    tokens = image(2)
    mask = torch.tensor([[True, True, True, False, False], [True] * 5])
    spoiled = tokens.masked_fill(~mask[..., None], 1e6)
    settings = GenerationSettings(method="beam", beams=2)
    for chosen in (GenerationSettings(), settings):
        first = generate(decoder, tokens, mask, BEGIN, END, chosen)
        assert first == generate(decoder, spoiled, mask, BEGIN, END, chosen)
        alone = generate(decoder, tokens[:1, :3], None, BEGIN, END, chosen)
        assert first[:1] == alone


def test_a_sampled_report_depends_on_its_name_and_seed_and_not_on_its_neighbours(decoder):
    tokens = image(4)
    settings = GenerationSettings(method="nucleus", seed=1, temperature=2.0)
    names = ["a", "b", "c", "d"]
    together = generate(decoder, tokens, None, BEGIN, END, settings, names)
    for row, name in enumerate(names):
        one = generate(decoder, tokens[row : row + 1], None, BEGIN, END, settings, [name])
        assert one == together[row : row + 1]
    other = GenerationSettings(method="nucleus", seed=2, temperature=2.0)
    assert generate(decoder, tokens, None, BEGIN, END, other, names) != together


def test_a_nucleus_holds_only_the_likeliest_words(decoder):
    tokens = image(1)
    first = whole_logits(decoder, tokens, []).softmax(dim=0)
    order = first.argsort(descending=True).tolist()
    top_p = float(first[order[0]] + first[order[1]]) - 1e-6
    settings = [GenerationSettings(method="nucleus", top_p=top_p, seed=s) for s in range(60)]
    starts = {
        (generate(decoder, tokens, None, BEGIN, END, chosen)[0] or [END])[0] for chosen in settings
    }
    assert starts == set(order[:2])
    tiny = GenerationSettings(method="nucleus", top_p=1e-6)
    greedy = generate(decoder, tokens, None, BEGIN, END, GenerationSettings())
    assert generate(decoder, tokens, None, BEGIN, END, tiny) == greedy


def test_beams_as_many_as_there_are_reports_find_the_likeliest_of_all(decoder):
    """Exhaustive search over every report of up to three tokens, by whole passes."""
    tokens = image(3)
    words = [token for token in range(VOCABULARY) if token != END]
    limit = 4  # begin, and up to three tokens
    settings = GenerationSettings(method="beam", beams=VOCABULARY**3, max_tokens=limit)
    for row in range(3):
        best, best_score = None, -math.inf
        for length in range(limit):
            for report in itertools.product(words, repeat=length):
                score = log_likelihood(decoder, tokens[row : row + 1], list(report), limit)
                if score > best_score:
                    best, best_score = list(report), score
        (found,) = generate(decoder, tokens[row : row + 1], None, BEGIN, END, settings)
        assert log_likelihood(decoder, tokens[row : row + 1], found, limit) == pytest.approx(
            best_score
        )
        assert found == best


_KNOWN = {}


def log_likelihood(decoder, tokens, report, limit):
    """Per token, with the end where it was not cut off."""
    total = 0.0
    wanted = [*report, END] if len(report) < limit - 1 else report
    for place, token in enumerate(wanted):
        key = (tuple(tokens.flatten().tolist()), tuple(report[:place]))
        if key not in _KNOWN:
            _KNOWN[key] = whole_logits(decoder, tokens, report[:place]).log_softmax(dim=0)
        total += float(_KNOWN[key][token])
    return total / max(len(wanted), 1)


def test_one_beam_is_greedy(decoder):
    tokens = image(6)
    one = GenerationSettings(method="beam", beams=1)
    greedy = generate(decoder, tokens, None, BEGIN, END, GenerationSettings())
    assert generate(decoder, tokens, None, BEGIN, END, one) == greedy


def test_no_report_is_longer_than_asked(decoder):
    for method in ("greedy", "nucleus", "beam"):
        settings = GenerationSettings(method=method, max_tokens=3)
        reports = generate(decoder, image(), None, BEGIN, END, settings)
        assert max(map(len, reports)) <= 2


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"method": "magic"}, "magic"),
        ({"top_p": 0.0}, "top_p"),
        ({"beams": 0}, "beams"),
        ({"max_tokens": 1}, "max_tokens"),
    ],
)
def test_impossible_settings_are_named(settings, part):
    with pytest.raises(ColipriError, match=part):
        GenerationSettings(**settings)
