"""Credentials: one at a time, read anew when they change, never shown, never used when they are over."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from pydantic import SecretStr
from spica_ingest.archive.credentials import Anonymous, Certificate, Token, credential_from
from spica_ingest.settings import IngestSettings
from spica_runtime.errors import Unavailable, UsageError


def pem(path: Path, begin_days: float, end_days: float) -> Path:
    now = datetime.now(UTC)
    leaf = trustme.CA().issue_cert(
        "someone@example.org",
        not_before=now + timedelta(days=begin_days),
        not_after=now + timedelta(days=end_days),
    )
    leaf.private_key_and_cert_chain_pem.write_to_path(path)
    return path


def test_a_token_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first\n")
    token = Token(path)
    assert token.proof().headers == {"Authorization": "Bearer first"}
    path.write_text("the-second")
    os.utime(path, (1, 1))
    assert token.proof().headers == {"Authorization": "Bearer the-second"}
    assert "second" not in str(token) and "second" not in repr(token.proof())


@pytest.mark.parametrize("content", ["", "two words", "line\nbreak", "ümlaut", "a\x00b"])
def test_what_is_no_token_is_not_sent(tmp_path: Path, content: str) -> None:
    path = tmp_path / "token"
    path.write_text(content)
    with pytest.raises(Unavailable) as caught:
        Token(path).proof()
    assert caught.value.code == "archive_credential"
    assert not content or content not in caught.value.message


def test_a_missing_file_says_which(tmp_path: Path) -> None:
    for credential in (Token(tmp_path / "none"), Certificate(tmp_path / "none")):
        with pytest.raises(Unavailable, match=r"none cannot be read"):
            credential.proof()


def test_an_expired_certificate_is_not_used_until_it_is_renewed(tmp_path: Path) -> None:
    certificate = Certificate(pem(tmp_path / "proxy.pem", -10, -1))
    with pytest.raises(Unavailable, match=r"proxy\.pem expired on \d{4}-\d\d-\d\d .*cadc-get-cert") as caught:
        certificate.proof()
    assert caught.value.after_s == 60
    pem(tmp_path / "proxy.pem", -1, 10)
    assert certificate.proof().certificate == tmp_path / "proxy.pem"


def test_a_certificate_of_tomorrow_and_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="not valid before"):
        Certificate(pem(tmp_path / "early.pem", 1, 10)).proof()
    (tmp_path / "text.pem").write_text("not a certificate")
    with pytest.raises(Unavailable, match="no PEM file"):
        Certificate(tmp_path / "text.pem").proof()


def test_one_credential_at_a_time(tmp_path: Path) -> None:
    assert isinstance(credential_from(None, None, None), Anonymous)
    assert isinstance(credential_from(SecretStr(""), None, None), Anonymous)
    assert isinstance(credential_from(None, None, tmp_path), Certificate)
    assert isinstance(credential_from(None, tmp_path, None), Token)
    with pytest.raises(UsageError, match="one credential at a time"):
        credential_from(SecretStr("x"), tmp_path, None)


async def test_settings_do_not_tell_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    from spica_console.catalogue import all_settings

    monkeypatch.setenv("SPICA_INGEST_ARCHIVE_TOKEN", "very-secret")
    settings = IngestSettings()
    assert settings.archive_token is not None and settings.archive_token.get_secret_value() == "very-secret"
    shown = [str(settings), repr(settings), str(settings.model_dump(mode="json")), str(await all_settings())]
    assert not [text for text in shown if "very-secret" in text]
