"""Forms, as they come over HTTP, that are nearly right."""

from collections.abc import Callable

import pytest
from fastapi import HTTPException

from latentry.deploy.uploads import boundary_of, files_in
from latentry.errors import LatentryError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

MOST_FILES = 4
FORM = b"".join(
    b"--x\r\nContent-Disposition: form-data; name=images; " + name + b"\r\nContent-Type: image/png\r\n\r\nabc\r\n"
    for name in (b"filename=a.png", b"filename*=utf-8''b.png", b"filename*0=c; filename*1=.png")
)
TYPES = (
    b"multipart/form-data; boundary=x",
    b'multipart/form-data; boundary="x y"',
    b"multipart/form-data; boundary*=utf-8''x",
    b"multipart/form-data; boundary*0=a; boundary*1=b",
    b"multipart/form-data; boundary*=a; boundary*0=b",
)


def refused_in_a_sentence(read: Callable[[bytes], object]) -> Callable[[bytes | None], object]:
    def reader(content: bytes | None) -> object:
        try:
            return read(content or b"")
        except HTTPException as error:
            if error.status_code >= 500:
                raise
            raise LatentryError(error.detail) from None

    return reader


def test_a_form(fuzzed):
    whole = (FORM + b"--x--\r\n", FORM + FORM + b"--x--", b"--x--", FORM)
    readings = fuzzed(whole, refused_in_a_sentence(lambda body: files_in(bytearray(body), b"x", MOST_FILES)), files_in)
    assert readings.problems == []
    assert readings.said


def test_a_header(fuzzed):
    readings = fuzzed(TYPES, refused_in_a_sentence(lambda header: boundary_of(header.decode("latin-1"))), boundary_of)
    assert readings.problems == []
    assert readings.said
