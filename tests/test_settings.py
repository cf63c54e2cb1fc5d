"""settings: the command line, the environment, and sentences for what is wrong."""

from dataclasses import fields
from pathlib import Path

import pytest

from settings import Settings, SettingsError, option, parser, read


def test_defaults_listen_to_this_computer_only():
    settings = read([], {})
    assert (settings.host, settings.port, settings.local) == ("127.0.0.1", 8000, True)


def test_every_setting_can_come_from_the_environment_and_the_command_line_wins():
    assert read([], {"LINNET_PORT": "9000", "LINNET_NO_CACHE": "yes"}).port == 9000
    assert read([], {"LINNET_NO_CACHE": "yes"}).no_cache
    assert read(["--port", "9001"], {"LINNET_PORT": "9000"}).port == 9001


def test_the_home_directory_is_expanded():
    assert read([], {"LINNET_CACHE_DIR": "~/x"}).cache_dir == Path.home() / "x"


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["--colour", "red"], {}, "--colour"),
        (["--po", "8000"], {}, "--po"),
        (["--port"], {}, "--port"),
        (["--port", "http"], {}, "--port must be a whole number, not 'http'"),
        (["--port", "99999"], {}, "--port must be from 0 to 65,535"),
        (["--slots", "0"], {}, "--slots"),
        (["--temperature", "nan"], {}, "--temperature"),
        (["--model", ""], {}, "--model must not be empty"),
        (["--host", "0.0.0.0"], {}, "--api-key"),
        ([], {"LINNET_PROT": "1"}, "LINNET_PROT"),
        ([], {"LINNET_PORT": "x"}, "LINNET_PORT"),
        ([], {"LINNET_NO_CACHE": "maybe"}, "LINNET_NO_CACHE"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence_that_names_it(arguments, environment, words):
    with pytest.raises(SettingsError) as error:
        read(arguments, environment)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_another_address_is_fine_with_a_key():
    assert not read(["--host", "0.0.0.0", "--api-key", "k"], {}).local


def test_the_help_explains_every_setting():
    text = parser().format_help()
    for field in fields(Settings):
        assert option(field) in text
        assert field.metadata["help"]
