from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest

from quickstart import reference
from quickstart.config import SETTINGS, Settings, load

ROOT = Path(__file__).parents[2]
EXAMPLES = {
    "image": "riva",
    "ssl_use_mutual_auth": "false",
    "riva_target_gpu_family": "tegra",
    "riva_tegra_platform": "xavier",
    "asr_language_code": "de-DE en-US",
    "asr_accessory_model": "silero",
    "tts_language_code": "de-DE",
    "nmt_remote_asr_service": "host:1",
    "nmt_remote_tts_service": "host:1",
    "RIVA_EULA": "accept",
    "server_log_format": "json",
    "container_gpu_access": "cdi",
    "container_memory": "8g",
    "models_asr": "nvidia/riva/rmir_asr_conformer_en_us_str:2.19.0",
}


def test_example_file_is_fresh() -> None:
    """config.example.env is what `riva-qs config example` prints."""
    assert (ROOT / "config.example.env").read_text() == reference.example() + "\n"


def test_documented_table_is_fresh() -> None:
    """The table in docs/configuration.md is generated from the settings."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    found = re.search(r"<!-- keys: begin -->\n(.*?)\n<!-- keys: end -->", text, re.DOTALL)
    assert found is not None
    assert found[1] == reference.table()


def test_example_uncommented_is_the_default(tmp_path: Path) -> None:
    """Uncommenting every key of the example changes no setting, and misses none."""
    names = "|".join(SETTINGS)
    text, count = re.subn(rf"(?m)^#({names})=", r"\1=", reference.example())
    (tmp_path / "config.env").write_text(text)
    assert count == len(SETTINGS)
    assert load(tmp_path / "config.env", environ={}).settings == Settings()


@pytest.mark.parametrize("name", SETTINGS)
def test_every_variable_in_the_table_works(name: str) -> None:
    """Each environment variable that the table names sets its key."""
    for variable in SETTINGS[name].variables:
        value = {"bool": "false", "int": "7"}.get(SETTINGS[name].kind, EXAMPLES.get(name, "auto"))
        pair = {"ssl_server_cert": "ssl_server_key", "ssl_server_key": "ssl_server_cert"}
        needed = [f"{pair[name]}=/pem"] if name in pair else []
        loaded = load(overrides=needed, environ={variable: value})
        assert loaded.origins[name] == f"environment {variable}"


def test_the_schema_is_one() -> None:
    """`config schema` is a JSON Schema, and knows every key."""
    schema = reference.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert set(schema["properties"]) == set(SETTINGS)


@pytest.mark.parametrize("image", ["open", "riva"])
def test_the_schema_describes_the_values(image: str) -> None:
    """What `config show --json` gives fits the schema, and what cannot be does not."""
    loaded = load(overrides=[f"image={image}"], environ={})
    values = {name: loaded.data(name) for name in SETTINGS}
    data = json.loads(json.dumps(values))
    validator = jsonschema.Draft202012Validator(reference.schema())
    validator.validate(data)
    for wrong in ({"bakend": "auto"}, {"backend": "x"}, {"riva_speech_api_port": "1"}):
        assert not validator.is_valid(wrong)


def test_the_documented_models_are_those_of_the_maps() -> None:
    """docs/configuration.md lists every model of NVIDIA's with its languages."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    found = re.search(r"<!-- models: begin -->\n(.*?)\n<!-- models: end -->", text, re.DOTALL)
    assert found is not None
    assert found[1] == reference.models_table()
