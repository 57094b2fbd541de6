"""Where weights are: a path, an installed package, a hub, a URL. Downloads say so, and are checked.

A downloaded file is kept in the user's cache, and read from there the next time.
"""

import hashlib
import importlib.util
import json
import os
import re
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

from absl import logging

from tljax.errors import RunError, UserError
from tljax.progress import Progress

HUB, PACKAGE, URL = 'hf://', 'package:', 'url:'
SUFFIXES = ('.safetensors', '.pth', '.pt', '.th', '.bin', '.npz', '.h5')
CHUNK = 1 << 20
# In this order; the first that a hub's repository has is the one that is fetched.
HUB_FILES = (
    'model.safetensors',
    'model.safetensors.index.json',
    'pytorch_model.bin',
    'pytorch_model.bin.index.json',
)
HUB_EXTRAS = (
    *('config.json', '1_Pooling/config.json', 'tokenizer.json', 'tokenizer_config.json'),
    *('vocab.txt', 'vocab.json', 'merges.txt'),
)


def locate(uri: str, *, quiet: bool = False) -> Path:
    """The file or directory of weights that a URI names, downloaded if it must be.

    Args:
      uri: a path; 'package:NAME' or 'package:NAME/FILE', weights inside an installed package;
        'hf://ORG/NAME' or 'hf://ORG/NAME@REVISION'; 'url:https://...#sha256=HEX'.
      quiet: no progress bar.

    Raises:
      UserError: there is no such thing, or it is not the file that the sha256 promises.
      RunError: a download failed.
    """
    if uri.startswith(PACKAGE):
        return in_package(uri.removeprefix(PACKAGE))
    if uri.startswith(HUB):
        return from_hub(uri, quiet)
    if uri.startswith(URL):
        return from_url(uri.removeprefix(URL), quiet)
    path = Path(uri).expanduser()
    if not path.exists():
        raise UserError(
            f'config.source.uri: there is nothing at {uri!r}. It takes the path of a model, of a '
            "workdir or of a file of weights; 'config:FILE:ARG', which is trained first; "
            "'package:NAME', 'hf://ORG/NAME' or 'url:https://...#sha256=HEX'."
        )
    return path


def is_remote(uri: str) -> bool:
    """Whether reading it may take the network."""
    return uri.startswith((HUB, URL))


def in_package(name: str) -> Path:
    """The weights inside an installed package, whose code is not run."""
    module, _, inside = name.partition('/')
    if not re.fullmatch(r'\w+', module):
        raise UserError(f"config.source.uri: {PACKAGE}{name} is not of the form 'package:NAME'.")
    found = importlib.util.find_spec(module)
    if found is None or not found.submodule_search_locations:
        raise UserError(
            f'config.source.uri: no package {module!r} is installed. Install the one that carries '
            'these weights, or name another source.'
        )
    root = Path(next(iter(found.submodule_search_locations)))
    if inside:
        path = (root / inside).resolve()
        if not path.exists() or not path.is_relative_to(root.resolve()):
            raise UserError(f'config.source.uri: the package {module} has no file {inside!r}.')
        return path
    files = sorted(path for path in root.rglob('*') if path.suffix in SUFFIXES)
    if len(files) == 1:
        return files[0]
    names = ', '.join(str(path.relative_to(root)) for path in files[:8])
    raise UserError(
        f'config.source.uri: the package {module} holds '
        + (
            f'several files of weights: {names}. Add one: package:{module}/FILE.'
            if files
            else f'no weights ({", ".join(SUFFIXES)}).'
        )
    )


def cache_directory() -> Path:
    home = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    return home / 'tljax' / 'weights'


def from_url(spec: str, quiet: bool) -> Path:
    """The file at a URL; its sha256 decides whether it is the right one."""
    url, _, fragment = spec.partition('#')
    digest = fragment.removeprefix('sha256=').lower()
    if not re.fullmatch('[0-9a-f]{8,64}', digest) or not fragment.startswith('sha256='):
        raise UserError(
            f"config.source.uri: url:{spec} needs its checksum: 'url:https://...#sha256=' and 64 "
            'hexadecimal digits, or the first 8 or more where a publisher tells no others, so that '
            'what is read is what was meant.'
        )
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ('https', 'http') or not parts.netloc:
        raise UserError(f'config.source.uri: {url!r} is no https address.')
    name = Path(parts.path).name or 'weights'
    path = cache_directory() / digest / name
    if path.exists():
        if sha256_of(path).startswith(digest):
            return path
        logging.warning('%s was damaged, and is fetched again.', path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=60) as response:
            download(response, url, path, digest, quiet)
    except urllib.error.HTTPError as error:
        raise RunError(f'{url} cannot be downloaded: {error.code} {error.reason}.') from error
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, 'reason', error)
        raise RunError(f'{url} cannot be downloaded: {reason}.') from error
    except OSError as error:
        raise UserError(f'{path.parent} cannot be written: {error.strerror or error}.') from error
    return path


def download(response: Any, url: str, path: Path, digest: str, quiet: bool) -> None:
    """Streams a response into a file, which gets its name only if its sha256 is right."""
    size = int(response.headers.get('Content-Length') or 0)
    logging.info('Downloading %s (%s) to %s', url, readable(size), path.parent)
    sha, received = hashlib.sha256(), 0
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        try:
            with Progress(size, 'bytes', quiet=quiet, label=path.name) as progress:
                while block := response.read(CHUNK):
                    file.write(block)
                    sha.update(block)
                    received += len(block)
                    progress.update(len(block))
            if size and received != size:
                raise RunError(f'{url}: {received} of {size} bytes came. Try again.')
            if not sha.hexdigest().startswith(digest):
                raise UserError(
                    f'{url} has sha256 {sha.hexdigest()}, not {digest}: it is not the file that '
                    'was meant, and was deleted.'
                )
            file.close()
            os.replace(file.name, path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def readable(size: float) -> str:
    if not size:
        return 'of unknown size'
    return f'{size / 1e9:.1f} GB' if size >= 1e9 else f'{size / 1e6:.1f} MB'


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def from_hub(uri: str, quiet: bool) -> Path:
    """The directory of a hub's repository, with its weights and config.json."""
    name, _, revision = uri.removeprefix(HUB).partition('@')
    if not re.fullmatch(r'[\w.-]+/[\w.-]+', name) or uri.endswith('@'):
        raise UserError(
            f"config.source.uri: {uri!r} is not of the form 'hf://ORG/NAME' or "
            "'hf://ORG/NAME@REVISION'."
        )
    try:
        import huggingface_hub
    except ImportError:
        raise UserError(
            f"config.source.uri: {uri} needs the extra `hub`: pip install 'tljax[hub]'."
        ) from None
    kept = in_hub_cache(huggingface_hub, name, revision or 'main')
    return kept or fetched(huggingface_hub, uri, name, revision or 'main', quiet)


def in_hub_cache(hub: Any, name: str, revision: str) -> Path | None:
    """The directory, if the hub's own cache holds the weights and their config.json already."""

    def cached(file: str) -> Path | None:
        path = hub.try_to_load_from_cache(name, file, revision=revision)
        return Path(path) if isinstance(path, str) else None

    first = next((path for path in map(cached, HUB_FILES) if path), None)
    if first is None or cached('config.json') is None:
        return None
    if first.suffix == '.json':
        try:
            shards = set(json.loads(first.read_text())['weight_map'].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        if not all(map(cached, map(str, shards))):
            return None
    return first.parent


def fetched(hub: Any, uri: str, name: str, revision: str, quiet: bool) -> Path:
    """Downloads the weights of a repository through the hub's library, and checks them."""
    try:
        info = hub.HfApi().model_info(name, revision=revision, files_metadata=True)
        files = {sibling.rfilename: sibling for sibling in info.siblings}
        chosen = chosen_files(uri, files)
        size = sum(files[file].size or 0 for file in chosen)
        logging.info('Downloading %s (%s): %s', uri, readable(size), ', '.join(chosen))
        paths = {file: Path(hub.hf_hub_download(name, file, revision=info.sha)) for file in chosen}
        # The branch's name is what the cache is asked for next time.
        if revision != info.sha:
            hub.hf_hub_download(name, chosen[0], revision=revision)
    except UserError:
        raise
    except Exception as error:  # the hub's library raises a dozen kinds, some of them OSErrors
        words = ' '.join(str(error).split('\n\n')[0].split())
        raise RunError(f'{uri} cannot be downloaded: {words}') from error
    for file, path in paths.items():
        promised = getattr(files[file].lfs, 'sha256', None) if files[file].lfs else None
        if promised and sha256_of(path) != promised:
            path.resolve().unlink()  # out of the cache, where nobody would check it again
            path.unlink(missing_ok=True)
            raise UserError(f'{uri}: {file} has not the sha256 {promised} that the hub promises.')
    return paths[chosen[0]].parent


def chosen_files(uri: str, files: Any) -> list[str]:
    """Which files of a repository to fetch: one kind of weights, its shards, its config."""
    for first in HUB_FILES:
        if first not in files:
            continue
        shards = []
        if first.endswith('.index.json'):
            suffix = '.' + first.split('.')[1]
            stem = first.split('.')[0]
            shards = [f for f in files if re.fullmatch(rf'{stem}-\d+-of-\d+\{suffix}', f)]
        return [first, *shards, *(file for file in HUB_EXTRAS if file in files)]
    raise UserError(
        f'config.source.uri: {uri} holds none of {", ".join(HUB_FILES)}; it has '
        f'{", ".join(sorted(files)[:8])}.'
    )
