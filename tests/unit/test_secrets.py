"""Secrets do not come into logs, and nothing else is lost from them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm_babysitter.adapters.secrets import HIDDEN, Secrets

PRIVATE = "hunter2-x"


@pytest.mark.parametrize(
    "line",
    [
        "password={}",
        "Password: {}",
        '"password": "{}"',
        "{{'smtp_password': '{}', 'host': 'x'}}",
        "api_key={}&vm=a",
        "API-KEY: {}",
        "Authorization: Bearer {}",
        "token = {}",
        "client_secret='{}'",
        "https://user:{}@example.org/hook",
        "smb://user:{}@nas/share is gone",
        "argv: ['notify', '--password', '{}', '--vm', 'a']",
        "notify --token {} --vm a",
        "notify --token={} --vm a",
        'passphrase: "a {} b"',
    ],
)
def test_what_looks_like_a_secret_is_hidden(line: str) -> None:
    hidden = Secrets().hide(line.format(PRIVATE))
    assert PRIVATE not in hidden
    assert HIDDEN in hidden


@pytest.mark.parametrize(
    "line",
    [
        "backup of token ring begins.",
        "VM 'password safe' was backed up",
        "the secret is out",
        "https://example.org:8080/hook",
        "Disk vda: 5 GiB, 12 %, /mnt/user/domains/a b/vdisk1.img",
        "file:///mnt/user/a@b",
        "",
    ],
)
def test_what_is_none_is_left_as_it_is(line: str) -> None:
    assert Secrets().hide(line) == line


def test_of_a_web_address_the_path_is_hidden_where_the_host_is_not_beside_it() -> None:
    secrets = Secrets()
    secrets.know(["https://hooks.example/services/T0/private?who=private2", "http://nas/x", "y/z"])
    pool = "HTTPSConnectionPool(host='hooks.example', port=443): Max retries exceeded with url: "
    hidden = secrets.hide(f"{pool}/services/T0/private?who=private2 (Caused by x), /x")
    assert hidden == f"{pool}{HIDDEN}?{HIDDEN} (Caused by x), /x"
    secrets.know(["http://[x/private", ""])
    assert secrets.hide("/private") == "/private"


def test_what_is_known_is_hidden_wherever_it_is() -> None:
    secrets = Secrets()
    secrets.know(["abcd", "abcdefgh", "x"])
    assert secrets.hide("1abcdefgh2abcd3 x") == f"1{HIDDEN}2{HIDDEN}3 x"
    secrets.know([])
    assert secrets.hide("abcd") == "abcd"


@given(st.text(min_size=4), st.text(), st.text())
def test_whatever_a_known_secret_is_it_is_not_in_what_is_left(
    secret: str, before: str, after: str
) -> None:
    secrets = Secrets()
    secrets.know([secret])
    hidden = secrets.hide(before + secret + after)
    assert secret not in hidden or secret in HIDDEN * 2 or HIDDEN in secret
