"""Where weights are: paths, packages, URLs and a hub, on a server of the test's own."""

import functools
import hashlib
import http.server
import sys
import threading

import pytest

from tljax.errors import RunError, UserError
from tljax.pretrained import locations
from tljax.pretrained.locations import locate

CONTENT = bytes(range(256)) * 5000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return tmp_path / 'cache' / 'tljax' / 'weights'


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        if self.path != '/short':
            return super().do_GET()
        self.send_response(200)
        self.send_header('Content-Length', '1000')
        self.end_headers()
        return self.wfile.write(b'x' * 10)


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / 'served'
    folder.mkdir()
    (folder / 'weights.pth').write_bytes(CONTENT)
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f'http://127.0.0.1:{running.server_port}', folder
        running.shutdown()
        thread.join()


@pytest.mark.parametrize('digits', [64, 8])
def test_a_download_is_checked_and_kept(server, cache, digits, caplog):
    url, folder = server
    uri = f'url:{url}/weights.pth#sha256={DIGEST[:digits]}'
    with caplog.at_level('INFO', logger='absl'):
        path = locate(uri)
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(cache)
    assert 'Downloading' in caplog.text
    assert '1.3 MB' in caplog.text
    (folder / 'weights.pth').unlink()
    assert locate(uri) == path  # from the cache


def test_another_file_than_promised_is_not_kept(server, cache):
    url, _ = server
    with pytest.raises(UserError) as caught:
        locate(f'url:{url}/weights.pth#sha256={"0" * 64}')
    assert DIGEST in str(caught.value)
    assert '0' * 64 in str(caught.value)
    assert not [path for path in cache.rglob('*') if path.is_file()]


def test_a_download_that_breaks_off_is_not_kept(server, cache):
    url, _ = server
    with pytest.raises(RunError, match='10 of 1000 bytes came'):
        locate(f'url:{url}/short#sha256={DIGEST}')
    assert not [path for path in cache.rglob('*') if path.is_file()]


def test_what_a_server_does_not_have(server):
    url, _ = server
    with pytest.raises(RunError, match='cannot be downloaded: 404 File not found'):
        locate(f'url:{url}/other.pth#sha256={DIGEST}')


def test_no_server():
    with pytest.raises(RunError, match='cannot be downloaded'):
        locate(f'url:http://127.0.0.1:9/weights.pth#sha256={DIGEST}')


@pytest.mark.parametrize(
    ('uri', 'said'),
    [
        ('url:https://example.org/a.pth', 'needs its checksum'),
        ('url:https://example.org/a.pth#sha256=12', 'needs its checksum'),
        (f'url:https://example.org/a.pth#md5={DIGEST}', 'needs its checksum'),
        (f'url:ftp://example.org/a.pth#sha256={DIGEST}', 'is no https address'),
        (f'url:file:///etc/passwd#sha256={DIGEST}', 'is no https address'),
        ('hf://name', "'hf://ORG/NAME'"),
        ('hf://org/name@', "'hf://ORG/NAME'"),
        ('package:absent_package', "no package 'absent_package' is installed"),
        ('package:os.path', "'package:NAME'"),
        ('package:json', 'holds no weights'),
        ('nowhere/at/all', "there is nothing at 'nowhere/at/all'"),
    ],
)
def test_wrong_uris(uri, said):
    with pytest.raises(UserError) as caught:
        locate(uri)
    assert said in str(caught.value)
    assert 'config.source.uri' in str(caught.value)


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / 'site' / 'some_weights' / 'inner'
    folder.mkdir(parents=True)
    (folder.parent / '__init__.py').write_text('raise RuntimeError("code of the package ran")')
    (folder / 'one.pth').write_bytes(b'x')
    monkeypatch.syspath_prepend(str(tmp_path / 'site'))
    return folder


def test_weights_in_a_package_whose_code_is_not_run(package):
    assert locate('package:some_weights') == package / 'one.pth'
    assert 'some_weights' not in sys.modules


def test_one_of_several_in_a_package(package):
    (package / 'two.npz').write_bytes(b'x')
    with pytest.raises(UserError, match=r'several files of weights: inner/one.pth, inner/two.npz'):
        locate('package:some_weights')
    assert locate('package:some_weights/inner/two.npz') == package / 'two.npz'
    for inside in ('inner/three.npz', '../../secret'):
        with pytest.raises(UserError, match='has no file'):
            locate(f'package:some_weights/{inside}')


def test_a_path_is_itself(tmp_path):
    assert locate(str(tmp_path)) == tmp_path


def test_the_hub_needs_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    with pytest.raises(UserError, match=r'tljax\[hub\]'):
        locate('hf://org/name')


def test_which_files_of_a_repository_are_fetched():
    sharded = [
        'model.safetensors.index.json',
        'model-00001-of-00002.safetensors',
        'model-00002-of-00002.safetensors',
        'config.json',
        'pytorch_model.bin',
        'tf_model.h5',
    ]
    assert locations.chosen_files('hf://a/b', dict.fromkeys(sharded)) == sharded[:4]
    single = dict.fromkeys(['pytorch_model.bin', 'model.safetensors', '1_Pooling/config.json'])
    assert locations.chosen_files('hf://a/b', single) == [
        'model.safetensors',
        '1_Pooling/config.json',
    ]
    with pytest.raises(UserError, match=r'it has flax_model\.msgpack'):
        locations.chosen_files('hf://a/b', {'flax_model.msgpack': None})


def test_a_damaged_download_is_fetched_again(server, caplog):
    url, _ = server
    uri = f'url:{url}/weights.pth#sha256={DIGEST}'
    path = locate(uri)
    path.write_bytes(CONTENT[:-1] + b'x')
    with caplog.at_level('WARNING', logger='absl'):
        assert locate(uri).read_bytes() == CONTENT
    assert 'was damaged' in caplog.text
