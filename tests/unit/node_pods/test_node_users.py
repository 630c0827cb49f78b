"""Names of an image's users and groups as numbers."""

from __future__ import annotations

import pytest

from sagong.contracts.runtime import User
from sagong.errors import InvalidArgument
from sagong_node.users import resolve

PASSWD = b"root:x:0:0::/root:/bin/sh\napp:x:7:8::/app:/bin/sh\n"
GROUP = b"root:x:0:\nstaff:x:50:app\n"


@pytest.mark.parametrize(
    ("wanted", "groups", "found"),
    [
        ("", (), User(groups=(0,))),
        ("app", (), User(uid=7, gid=8, groups=(8, 50))),
        ("app:staff", (), User(uid=7, gid=50, groups=(50,))),
        ("1234:5", ("staff",), User(uid=1234, gid=5, groups=(5, 50))),
        ("2147483647", (), User(uid=2**31 - 1, groups=(0,))),
    ],
)
def test_names_and_numbers(wanted: str, groups: tuple[str, ...], found: User) -> None:
    assert resolve(wanted, groups, PASSWD, GROUP).user == found


@pytest.mark.parametrize(
    ("wanted", "groups", "said"),
    [
        ("nobody", (), "unable to find user nobody"),
        ("0:nobody", (), "unable to find group nobody"),
        ("4294967296", (), "in range 0-2147483647"),
        ("-1", (), "in range 0-2147483647"),
        ("0:2147483648", (), "in range 0-2147483647"),
        ("", ("99999999999",), "in range 0-2147483647"),
        ("²", (), "unable to find user ²"),
        ("9" * 5000, (), "unable to find user 999"),
        ("", ("²",), "Unable to find group ²"),
    ],
)
def test_who_cannot_be_is_refused(wanted: str, groups: tuple[str, ...], said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        resolve(wanted, groups, PASSWD, GROUP)


def test_lines_without_numbers_are_passed_over() -> None:
    passwd = "app:x:²:8::/a:/bin/sh\napp:x:7:8::/app:/bin/sh\n".encode()
    group = f"odd:x:²:app\nlong:x:{'9' * 5000}:app\nstaff:x:50:app\n".encode()
    assert resolve("app", (), passwd, group).user == User(uid=7, gid=8, groups=(8, 50))
