"""The hub's own library against a server of the test's own that speaks its protocol."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading

import pytest

pytest.importorskip('huggingface_hub', reason='the extra `hub` is not installed')

COMMIT = 'c' * 40
FILES = {'model.safetensors': b'w' * 3000, 'config.json': b'{"model_type": "made up"}'}
PROGRAM = """
import sys
from tljax.errors import UserError, RunError
from tljax.pretrained.locations import locate
try:
    path = locate(sys.argv[1])
    print(path, sorted(p.name for p in path.iterdir()))
except (UserError, RunError) as error:
    print(type(error).__name__, error)
"""


def sibling(name, content, digest):
    lfs = {'size': len(content), 'sha256': digest, 'pointerSize': 1}
    return {'rfilename': name, 'size': len(content), 'blobId': 'b', 'lfs': lfs}


class Hub(http.server.BaseHTTPRequestHandler):
    broken = False

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        path = self.path.partition('?')[0]
        if path.startswith('/api/models/org/name'):
            siblings = [
                sibling(name, content, '0' * 64 if self.broken else digest_of(content))
                for name, content in FILES.items()
            ]
            info = {'id': 'org/name', 'sha': COMMIT, 'siblings': siblings}
            return self.send(json.dumps(info).encode(), 'application/json', body)
        if path.startswith('/org/name/resolve/') and path.rpartition('/')[2] in FILES:
            return self.send(FILES[path.rpartition('/')[2]], 'application/octet-stream', body)
        return self.send_error(404)

    def send(self, content, kind, body):
        self.send_response(200)
        self.send_header('Content-Type', kind)
        self.send_header('Content-Length', str(len(content)))
        self.send_header('ETag', f'"{digest_of(content)}"')
        self.send_header('X-Repo-Commit', COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(content)


def digest_of(content):
    return hashlib.sha256(content).hexdigest()


def asked(uri, home, endpoint):
    env = os.environ | {
        'HF_ENDPOINT': endpoint,
        'HF_HOME': str(home),
        'HF_HUB_DISABLE_TELEMETRY': '1',
        'HF_HUB_DISABLE_XET': '1',
    }
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM, uri], capture_output=True, text=True, env=env, timeout=120
    )
    assert 'Traceback' not in done.stderr, done.stderr
    return done.stdout, done.stderr


def test_a_repository_is_fetched_checked_and_kept(tmp_path):
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        endpoint = f'http://127.0.0.1:{server.server_port}'
        try:
            said, _ = asked('hf://org/name', tmp_path / 'one', endpoint)
            assert "['config.json', 'model.safetensors']" in said
            said, _ = asked('hf://org/other', tmp_path / 'one', endpoint)
            assert said.startswith('RunError hf://org/other cannot be downloaded')
            Hub.broken = True
            said, _ = asked('hf://org/name', tmp_path / 'two', endpoint)
            assert 'UserError hf://org/name: model.safetensors has not the sha256 000' in said
            Hub.broken = False  # the bad file was not kept
            said, _ = asked('hf://org/name', tmp_path / 'two', endpoint)
            assert "['config.json', 'model.safetensors']" in said
        finally:
            Hub.broken = False
            server.shutdown()
            thread.join()
    # The server is gone; what is in the cache is enough.
    said, _ = asked('hf://org/name', tmp_path / 'one', endpoint)
    assert "['config.json', 'model.safetensors']" in said
