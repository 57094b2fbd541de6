"""tljax: transfer learning, and the measure of whether it helped.

python launch.py COMMAND --config=FILE[:ARG] [--config.key=value ...] --workdir=DIR
"""

import sys

from tljax.cli import main

if __name__ == '__main__':
    sys.exit(main(sys.argv))
