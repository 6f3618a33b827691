"""Forms with files (multipart/form-data, RFC 7578), as clients of MONAI Label use them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message

from colipri.common.errors import ColipriError


@dataclass(frozen=True)
class Part:
    """One field of a form.

    Attributes:
        content: as sent.
        file_name: of a file, as the client calls it, never to be used as a path; None for a field.
    """

    content: bytes
    file_name: str | None = None


def read_form(content_type: str, body: bytes) -> dict[str, Part]:
    """Return the fields of a form; of several with one name the last.

    Args:
        content_type: of the request.
        body: of the request.

    Raises:
        ColipriError: it is no form.
    """
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_param("boundary")
    if header.get_content_type() != "multipart/form-data" or not isinstance(boundary, str):
        raise ColipriError("the request must be a form (multipart/form-data)")
    fields: dict[str, Part] = {}
    for piece in (b"\r\n" + body).split(b"\r\n--" + boundary.encode())[1:]:
        head, found, content = piece.partition(b"\r\n\r\n")
        if not found:  # the mark of the end, or nothing
            continue
        part = Message()
        for line in head.decode("utf-8", "replace").splitlines():
            name, _, value = line.partition(":")
            part[name.strip()] = value.strip()
        field = part.get_param("name", header="Content-Disposition")
        if isinstance(field, str):
            fields[field] = Part(content, part.get_filename())
    return fields


def write_form(fields: Mapping[str, Part]) -> tuple[str, bytes]:
    """Return the content type and the body of a form.

    Args:
        fields: name -> part; names and names of files are ours, never a client's.
    """
    boundary = secrets.token_hex(16)
    pieces = []
    for name, part in fields.items():
        disposition = f'form-data; name="{name}"'
        kind = "text/plain"
        if part.file_name is not None:
            disposition += f'; filename="{part.file_name}"'
            kind = "application/octet-stream"
        head = f"--{boundary}\r\nContent-Disposition: {disposition}\r\nContent-Type: {kind}\r\n\r\n"
        pieces.append(head.encode() + part.content + b"\r\n")
    body = b"".join(pieces) + f"--{boundary}--\r\n".encode()
    return f"multipart/form-data; boundary={boundary}", body
