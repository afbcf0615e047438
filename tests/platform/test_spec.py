from pathlib import Path

import jsonschema
import pytest
import yaml

from rayramid.models.errors import UserError
from rayramid.platform.spec import KINDS, load_spec, spec_model

SPECS = Path(__file__).parents[2] / "infra" / "specs"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", sorted(SPECS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_spec_is_valid(path: Path) -> None:
    assert load_spec(path).model_dump()["kind"] in KINDS


def test_an_unknown_key_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    path = write(tmp_path, "kind: serve\nmodell: a\nstore: b\n")
    with pytest.raises(UserError, match=r"spec\.yaml: unknown key 'modell'; did you mean 'model'\?") as error:
        load_spec(path)
    assert "\n" not in str(error.value)


def test_an_unknown_key_of_an_inner_table_is_refused_with_that_tables_nearest_name(tmp_path: Path) -> None:
    path = write(tmp_path, "kind: serve\nmodel: a\nstore: b\nlimits: {queeue: 3}\n")
    with pytest.raises(UserError, match=r"unknown key 'limits\.queeue'; did you mean 'queue'\?"):
        load_spec(path)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the key 'store' is missing"):
        load_spec(write(tmp_path, "kind: serve\nmodel: a\n"))


def test_an_unknown_kind_is_refused_with_the_nearest_kind(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown kind 'trian'; did you mean 'train'\?"):
        load_spec(write(tmp_path, "kind: trian\n"))


def test_a_spec_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="kind is 'serve', this command takes kind 'data'"):
        load_spec(write(tmp_path, "kind: serve\nmodel: a\nstore: b\n"), kind="data")


def test_a_missing_file_says_how_to_get_examples(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.yaml: no such spec; 'rayramid init DIR'"):
        load_spec(tmp_path / "absent.yaml")


def test_broken_yaml_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not valid YAML at line 2"):
        load_spec(write(tmp_path, "kind: serve\n  model: a\n"))


def test_set_overrides_a_nested_value_and_reads_it_as_yaml(tmp_path: Path) -> None:
    path = write(tmp_path, "kind: serve\nmodel: a\nstore: b\n")
    spec = load_spec(path, ["limits.queue=3", "port=0"]).model_dump()
    assert (spec["limits"]["queue"], spec["port"]) == (3, 0)


@pytest.mark.parametrize("override", ["port", "=1", "model.inner=1"])
def test_a_broken_override_is_named(tmp_path: Path, override: str) -> None:
    path = write(tmp_path, "kind: serve\nmodel: a\nstore: b\n")
    with pytest.raises(UserError, match=f"--set {override}"):
        load_spec(path, [override])


def test_environment_variables_are_replaced_and_defaults_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE", "s3://bucket")
    path = write(tmp_path, "kind: serve\nmodel: ${WHERE}/model\nstore: ${STORE:-s3://other}/jobs\n")
    spec = load_spec(path).model_dump()
    assert (spec["model"], spec["store"]) == ("s3://bucket/model", "s3://other/jobs")


def test_an_unset_variable_without_default_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="environment variable NO_SUCH_VARIABLE is not set"):
        load_spec(write(tmp_path, "kind: serve\nmodel: ${NO_SUCH_VARIABLE}\nstore: b\n"))


def test_a_message_shows_a_variables_name_in_place_of_its_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORT", "hunter22")
    with pytest.raises(UserError, match=r"port: .*, got '\$\{PORT\}'") as error:
        load_spec(write(tmp_path, "kind: serve\nmodel: a\nstore: b\nport: ${PORT}\n"))
    assert "hunter22" not in str(error.value)


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "MLFLOW_URL"])
def test_a_secret_does_not_get_into_a_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "https://me:hunter22@host")
    with pytest.raises(UserError, match=f"{name} holds a secret, and a spec is kept") as error:
        load_spec(write(tmp_path, f"kind: serve\nmodel: a\nstore: ${{{name}}}\n"))
    assert "hunter22" not in str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_of_every_kind_describes_every_key_of_its_shipped_specs(kind: str) -> None:
    schema = spec_model(kind).model_json_schema()
    assert schema["additionalProperties"] is False
    for path in SPECS.glob("*.yaml"):
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
        if fields["kind"] == kind:
            jsonschema.validate(fields, schema)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_model_that_refuses_unknown_keys(kind: str) -> None:
    assert spec_model(kind).model_config["extra"] == "forbid"
