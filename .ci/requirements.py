"""Print what `pip install .[EXTRA]` would install beside our code: PYPROJECT EXTRA."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(sys.argv[1]).read_text())["project"]
requirements = project["dependencies"] + project["optional-dependencies"][sys.argv[2]]
sys.stdout.write("\n".join([*requirements, ""]))
