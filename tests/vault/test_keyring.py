import base64
import os
import stat
from pathlib import Path

import pytest

from broker.errors import ConfigurationError
from broker.vault import LocalKeyring
from broker.vault.keyring import generate_key_file, parse_keys, read_key_file

KEY = bytes(range(32))
TEXT = base64.b64encode(KEY).decode()
FIX = "Fix: openssl rand -base64 32"


def key_file(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "kek"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_an_empty_keyring_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="the keyring is empty"):
        LocalKeyring([])


def test_a_keyring_shows_key_ids_and_no_key() -> None:
    assert repr(LocalKeyring([KEY, KEY[::-1]])) == "LocalKeyring(2 keys, active local:6cae8967cd435bbd)"


def test_keys_stand_one_a_line_with_comments_between() -> None:
    other = base64.b64encode(KEY[::-1]).decode()

    assert parse_keys(f"# new\n {other}\n\n# old\r\n{TEXT}\n", "kek") == [KEY[::-1], KEY]


@pytest.mark.parametrize(
    "text",
    [
        "canary",
        TEXT[:-4],
        TEXT.rstrip("="),
        TEXT + TEXT,
        base64.b64encode(KEY[:31]).decode(),
        base64.b64encode(KEY + b"\0").decode(),
        base64.urlsafe_b64encode(b"\xff" * 31 + b"\0").decode(),
        KEY.hex(),
        "é" * 44,
        f"{TEXT} # old",
        f"canary\n{TEXT}",
    ],
)
def test_a_malformed_key_is_refused_with_a_fix_that_does_not_quote_it(text: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse_keys(text, "kek")

    assert str(raised.value) == f"kek: a key-encryption key is 32 random bytes in base64, one a line. {FIX}"


@pytest.mark.parametrize("byte", [b"\0", b"\xff", b"k"])
def test_a_key_of_one_repeated_byte_is_refused(byte: bytes) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse_keys(base64.b64encode(byte * 32).decode(), "kek")

    assert str(raised.value) == f"kek: this key-encryption key is one byte repeated. {FIX}"


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_key_file_is_read_if_only_its_owner_can(tmp_path: Path, mode: int) -> None:
    assert read_key_file(key_file(tmp_path, TEXT.encode(), mode)) == [KEY]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o666, 0o777])
def test_a_key_file_that_others_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = key_file(tmp_path, TEXT.encode(), mode)

    with pytest.raises(ConfigurationError) as raised:
        read_key_file(path)

    assert str(raised.value) == f"{path} has mode {mode:04o}: others could read it. Fix: chmod 600 {path}"


def test_a_key_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be read \(FileNotFoundError\); it should hold a key"):
        read_key_file(tmp_path / "kek")


def test_a_directory_is_no_key_file(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(ConfigurationError, match=r"cannot be read \(IsADirectoryError\)"):
        read_key_file(tmp_path)


def test_a_binary_key_file_is_refused_without_quoting_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be read \(UnicodeDecodeError\); it should hold a key$"):
        read_key_file(key_file(tmp_path, b"\xffcanary"))


def test_a_generated_key_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "kek"
    before = os.umask(0)
    try:
        generate_key_file(path, lambda count: KEY[:count])
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_key_file(path) == [KEY]


def test_a_generated_key_file_replaces_none(tmp_path: Path) -> None:
    path = key_file(tmp_path, TEXT.encode())

    with pytest.raises(FileExistsError):
        generate_key_file(path)

    assert read_key_file(path) == [KEY]
