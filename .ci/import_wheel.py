"""Import every module of an installed mechicl, and see that each comes from that installation. Run by make wheel-check.

    python .ci/import_wheel.py CHECKOUT

The checkout says which modules there should be; none may be imported from it.
"""

import importlib
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path


def modules(checkout: Path) -> list[str]:
    """The names of all modules that lie in the folders of setup.cfg's packages."""
    setup = ConfigParser()
    setup.read(checkout / "setup.cfg")
    folders = dict(line.split(" = ") for line in setup["options"]["package_dir"].split("\n") if line)
    return sorted(
        package if file.stem == "__init__" else f"{package}.{file.stem}"
        for package, folder in folders.items()
        for file in (checkout / folder).glob("*.py")
    )


def main() -> None:
    """Import all, run the console script once, and say how many modules came from where."""
    checkout, home = Path(sys.argv[1]).resolve(), Path(sys.prefix).resolve()
    names = modules(checkout)
    for name in names:
        file = Path(str(importlib.import_module(name).__file__)).resolve()
        if not file.is_relative_to(home):
            sys.exit(f"{name} was imported from {file}, not from the wheel in {home}")
    from mechicl.analyses import pages

    if not (Path(str(pages.__file__)).parent / "templates" / "report.html.j2").is_file():
        sys.exit("the wheel lacks the report's template")
    script = shutil.which("mechicl", path=str(home / "bin"))
    subprocess.run([str(script), "models"], check=True, stdout=subprocess.DEVNULL)
    print(f"wheel: {len(names)} modules, the report's template and the command mechicl, all outside the checkout")


if __name__ == "__main__":
    main()
