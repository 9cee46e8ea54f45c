from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError
from spica_runtime.errors import NotRetriable, SpicaError, UsageError
from spica_runtime.home import HomeSettings
from spica_runtime.settings import PlatformSettings, ServiceSettings


@pytest.mark.parametrize("model", [PlatformSettings, ServiceSettings, HomeSettings])
def test_every_setting_is_described(model: type[PlatformSettings]) -> None:
    undocumented = [name for name, field in model.model_fields.items() if not field.description]
    assert undocumented == []


def test_environment_goes_over_file_and_file_over_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "spica.toml"
    file.write_text('[spica]\nnats_url = "nats://file:1"\ndatabase_url = "postgresql://file/x"\n')
    monkeypatch.setenv("SPICA_CONFIG", str(file))
    monkeypatch.setenv("SPICA_NATS_URL", "nats://environment:2")
    settings = PlatformSettings()
    assert settings.nats_url == "nats://environment:2"
    assert settings.database_url == "postgresql://file/x"
    assert settings.log_level == "info"
    assert settings.model_fields_set == {"nats_url", "database_url"}


def test_a_value_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPICA_LOG_LEVEL", "loud")
    with pytest.raises(ValidationError, match="log_level"):
        PlatformSettings()


def test_errors_cross_process_borders_with_their_numbers() -> None:
    error = NotRetriable("no_match", "No match.", {"stars": 3})
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, NotRetriable)
    assert isinstance(copy, SpicaError)
    assert (copy.code, copy.message, copy.numbers) == ("no_match", "No match.", {"stars": 3})


def test_a_settings_file_that_is_not_there_or_no_toml_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPICA_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(UsageError, match="no such file"):
        PlatformSettings()
    (tmp_path / "none.toml").write_text("[spica\n")
    with pytest.raises(UsageError, match="TOML"):
        PlatformSettings()
