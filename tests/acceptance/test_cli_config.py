"""config show: option, variable, file, default, in this order, and no password."""

import pytest

DSN = "postgresql://me:secret@db.example/shop"


def test_defaults(cli):
    document = cli.json("config", "show", "--source")
    assert document["settings"]["data_dir"] == "ruvector-data"
    assert document["settings"]["listen"] == ["127.0.0.1:7411"]
    assert set(document["sources"].values()) == {"default", "option"}  # --format is the option


def test_option_before_variable_before_file(cli):
    (cli.folder / "ruvector.toml").write_text('[ruvector]\nname = "file"\nthreads = 3\nlisten = ["a:1", "b:2"]\n')
    document = cli.json(
        "config", "show", "--source", "-d", DSN, RUVECTOR_NAME="variable", RUVECTOR_DSN="host=other", dsn="host=other"
    )
    settings, sources = document["settings"], document["sources"]
    assert (settings["name"], sources["name"]) == ("variable", "RUVECTOR_NAME")
    assert (settings["threads"], sources["threads"]) == (3, "ruvector.toml")
    assert settings["listen"] == ["a:1", "b:2"]
    assert sources["dsn"] == "option"
    assert "db.example" in settings["dsn"]


@pytest.mark.parametrize("dsn", [DSN, "postgresql+psycopg://me:secret@h/d", "host=h password='secret'", "secret=://"])
def test_password_is_never_shown(cli, dsn):
    answer = cli("config", "show", "--source", "-d", dsn)
    assert answer.code == 0
    assert "***" in answer.out
    assert "secret" not in answer.out + answer.err


def test_named_file(cli):
    path = cli.folder / "other.toml"
    path.write_text("[ruvector]\nhnsw_m = 32\n")
    assert cli.json("config", "show", "--config", path)["settings"]["hnsw_m"] == 32
    assert cli.json("config", "show", RUVECTOR_CONFIG=str(path))["settings"]["hnsw_m"] == 32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[ruvector]\nthreads = -1\n", 'setting "threads"'),
        ("[ruvector]\nturbo = true\n", "no setting turbo"),
        ("[warp]\nx = 1\n", "no section warp"),
        ("x = 1\n", "no section x"),
        ("[ruvector\n", "cannot be read"),
        ("ruvector = 5\n", "no section ruvector"),
    ],
)
def test_wrong_file_names_the_mistake(cli, text, message):
    (cli.folder / "ruvector.toml").write_text(text)
    answer = cli("config", "show")
    assert answer.code == 1
    assert message in answer.err
    assert "ruvector.toml" in answer.err


def test_wrong_variable_names_its_source(cli):
    answer = cli("config", "show", RUVECTOR_THREADS="many")
    assert answer.code == 1
    assert "detail: It comes from: RUVECTOR_THREADS." in answer.err


def test_missing_file(cli):
    answer = cli("status", "--config", "nowhere.toml")
    assert (answer.code, "nowhere.toml does not exist" in answer.err) == (1, True)
