"""Directories HOST[:PORT] of certs.d: what they say of registries and their mirrors."""

from __future__ import annotations

from pathlib import Path

import pytest

from sagong.errors import InvalidArgument
from sagong_image_overlay.endpoint import endpoints_of
from sagong_image_overlay.hosts import Ways, read_hosts
from sagong_image_overlay.settings import Registries

HOSTS = """
server = "https://real.test/"
[host."https://first.test/v2/hub"]
  capabilities = ["pull", "resolve"]
  override_path = true
  ca = "ca.pem"
  client = [["a.cert", "a.key"]]
[host."http://second.test:5000/below".header]
  Authorization = "Basic dTpw"
  X-Many = ["a", "b"]
[host."third.test"]
  capabilities = ["pull"]
  skip_verify = true
  ca = ["ca.pem", "ca.pem"]
  client = "both.pem"
[host."https://pushed.test"]
  capabilities = ["push"]
"""


def ways(top: Path, files: dict[str, str], **settings: object) -> Ways:
    """What there is below a directory with these files."""
    for name, text in files.items():
        (top / name).parent.mkdir(exist_ok=True, parents=True)
        (top / name).write_text(text)
    return Ways(Registries(**settings), read_hosts((str(top / "none"), str(top))))  # type: ignore[arg-type]


def test_mirrors_of_hosts_toml_come_in_their_order(tmp_path: Path) -> None:
    files = {name: name.upper() for name in ("ca.pem", "a.cert", "a.key", "both.pem")}
    files = {f"r.test/{name}": text for name, text in files.items()} | {"r.test/hosts.toml": HOSTS}
    found = ways(tmp_path, files, mirrors={"r.test": ("https://u:p%40@last.test",)})
    first, second, last, own = endpoints_of("r.test", found, push=False)
    assert first.url("/v2/a/tags/list") == "https://first.test/v2/hub/a/tags/list"
    assert first.mirror and first.space == "r.test" and not first.insecure
    assert first.trust.authorities == ("CA.PEM",) and first.trust.clients == ("A.CERT\nA.KEY",)
    assert second.url("/v2/") == "http://second.test:5000/below/v2/"
    assert second.headers == {"Authorization": "Basic dTpw", "X-Many": "a, b"}
    assert (last.host, last.login.username, last.login.password) == ("last.test", "u", "p@")
    assert (own.host, own.mirror, own.headers) == ("real.test", False, {})
    third = endpoints_of("r.test", found, push=False, by_digest=True)[2]
    assert (third.host, third.insecure, third.trust.clients) == ("third.test", True, ("BOTH.PEM",))
    assert [one.host for one in endpoints_of("r.test", found, push=True)] == ["real.test"]
    assert "p@" not in repr(last) and "dTpw" not in repr(second) and "A.KEY" not in repr(first)


def test_a_default_is_for_who_has_no_directory(tmp_path: Path) -> None:
    found = ways(
        tmp_path,
        {"_default/hosts.toml": '[host."https://any.test"]', "own.test/ca.crt": "CA"},
    )
    assert [one.host for one in endpoints_of("r.test", found, push=False)] == ["any.test", "r.test"]
    (own,) = endpoints_of("own.test", found, push=False)
    assert own.trust.authorities == ("CA",)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"hosts.toml": "host = 3"}, r"Expected `object`"),
        ({"hosts.toml": '[host."https://x"]\nca = "missing"'}, "No such file"),
        ({"hosts.toml": '[host."ftp://x"]'}, "'ftp://x' is not an http or https URL"),
        ({"client.cert": "C"}, "missing key client.key for client certificate client.cert"),
        ({"client.key": "K"}, "missing client certificate client.cert for key client.key"),
        ({"ca.crt": "C" * (1 << 21)}, "ca.crt has more than 1048576 bytes"),
    ],
)
def test_a_wrong_directory_is_of_interest_to_its_own_host_alone(
    tmp_path: Path, files: dict[str, str], message: str
) -> None:
    found = ways(tmp_path, {f"wrong.test:5000/{name}": text for name, text in files.items()})
    assert endpoints_of("right.test", found, push=False)
    with pytest.raises(InvalidArgument, match=message):
        endpoints_of("wrong.test:5000", found, push=False)
