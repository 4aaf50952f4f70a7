"""What a person names becomes a file: names of the list, addresses, paths."""

import hashlib
import logging
from urllib.parse import quote

import pytest
from hub_serving import Server, serving

from dinov2.errors import UserError
from dinov2.hub import check_weights, published, resolve_weights, weights_digest
from dinov2.hub.backbones import Weights, source_of
from dinov2.hub.cache import cache_folder, is_offline

CONTENT = b"weights"


def test_a_name_of_the_list_is_downloaded_with_its_notice(cache, caplog, monkeypatch):
    entry = published()["lunit/BT"]
    with serving(Server({"/bt_rn50_ep200.torch": CONTENT})) as server:

        def opener(request):
            assert request.full_url == entry.urls[0]
            request.full_url = f"https://files.test/{request.full_url.rsplit('/', 1)[1]}"
            return server.open(request)

        with caplog.at_level(logging.WARNING, "dinov2"):
            path = resolve_weights("lunit/BT", opener=opener, progress=False)
            resolve_weights("lunit/BT", offline=True)
        assert path == cache / "lunit_BT" / "bt_rn50_ep200.torch"
        assert path.read_bytes() == CONTENT
        assert len(server.requests) == 1
    assert caplog.text.count("non-commercial use only") == 1


def test_an_address_with_its_checksum(cache):
    right = hashlib.sha256(CONTENT).hexdigest()
    with serving(Server({"/a/w%20x.pth": CONTENT})) as server:
        url = "https://files.test/a/w%20x.pth?download=1"
        server.files["/a/w%20x.pth?download=1"] = CONTENT
        with pytest.raises(UserError, match="expected 0000"):
            resolve_weights(f"{url}#sha256={'0' * 64}", opener=server.open, progress=False)
        path = resolve_weights(f"{url}#sha256={right}", opener=server.open, progress=False)
    assert path.name == "w_x.pth"
    assert path.is_relative_to(cache)
    assert path.read_bytes() == CONTENT
    with pytest.raises(UserError, match="64 hexadecimal digits"):
        check_weights(f"{url}#sha256=abc")


def test_a_file_of_the_cache_has_its_checksum_too(cache, caplog):
    url = "https://files.test/w.pth"
    right = hashlib.sha256(CONTENT).hexdigest()
    with serving(Server({"/w.pth": CONTENT})) as server:
        path = resolve_weights(url, opener=server.open, progress=False)
        for damage in (CONTENT + b"!", b"<html>log in</html>"):
            path.write_bytes(damage)
            with pytest.raises(UserError, match=r"(another file|a web page).* switched off"):
                resolve_weights(f"{url}#sha256={right}", offline=True)
            assert resolve_weights(f"{url}#sha256={right}", opener=server.open, progress=False) == path
            assert path.read_bytes() == CONTENT
        path.write_bytes(b"<html>")
        with pytest.raises(UserError, match="a web page"):
            resolve_weights(url, offline=True)
    assert caplog.text.count("It is downloaded again") == 2


@pytest.mark.parametrize("name", ["w" * 300 + ".pth", "模型" * 150 + ".safetensors", "ä b.pth"])
def test_names_of_any_length_and_letters(name, cache):
    with serving(Server({f"/{quote(name)}": CONTENT})) as server:
        path = resolve_weights(f"https://files.test/{name}", opener=server.open, progress=False)
    assert path.read_bytes() == CONTENT
    assert path.name.endswith(name[-4:])
    with pytest.raises(UserError, match="does not exist"):
        check_weights(name)
    with pytest.raises(UserError, match="nor is there such a file"):
        source_of(name, Weights, "dinov2_vits14")


def test_offline(cache, monkeypatch):
    def forbidden(request):
        raise AssertionError("the network was used")

    target = cache / "dinov2_vits14" / "dinov2_vits14_pretrain.pth"
    for setting, offline in (("1", None), ("", True), ("0", True), ("true", None)):
        monkeypatch.setenv("DINOV2_OFFLINE", setting)
        with pytest.raises(UserError, match=f"switched off.*put the file at {target}"):
            resolve_weights("dinov2_vits14", offline=offline, opener=forbidden)
    target.parent.mkdir(parents=True)
    target.write_bytes(CONTENT)
    assert resolve_weights("dinov2_vits14", offline=True, opener=forbidden) == target


@pytest.mark.parametrize(
    ("value", "expected"), [("", False), ("0", False), ("False", False), ("no", False), ("1", True)]
)
def test_the_switch(value, expected, monkeypatch):
    monkeypatch.setenv("DINOV2_OFFLINE", value)
    assert is_offline() is expected


def test_folders_of_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "home" / "weights"
    monkeypatch.delenv("DINOV2_HOME")
    assert cache_folder() == tmp_path / "xdg" / "dinov2" / "weights"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "dinov2" / "weights"


def test_paths_and_mistakes(tmp_path):
    (tmp_path / "w.pth").write_bytes(CONTENT)
    assert resolve_weights(tmp_path / "w.pth") == tmp_path / "w.pth"
    assert resolve_weights(str(tmp_path)) == tmp_path
    with pytest.raises(UserError, match=r"no/such/file.pth does not exist"):
        resolve_weights("no/such/file.pth")
    with pytest.raises(
        UserError, match="does not exist as a file, and unknown published weights 'dinov2_vits': did you"
    ):
        resolve_weights("dinov2_vits")
    with pytest.raises(UserError, match=r"handed out at https://huggingface.co/MahmoodLab/UNI only"):
        check_weights("uni")


def test_digests(tmp_path):
    (tmp_path / "w.pth").write_bytes(CONTENT)
    assert weights_digest(tmp_path / "w.pth") == hashlib.sha256(CONTENT).hexdigest()
    before = weights_digest(tmp_path)
    (tmp_path / "w.pth").write_bytes(CONTENT + b"!")
    assert weights_digest(tmp_path) != before
