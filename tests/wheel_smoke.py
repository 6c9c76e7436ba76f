"""Try the built wheel away from the checkout: who owns which package, the command line, a store and its report.

Called by ``make wheel-smoke``; not a pytest file, because under pytest the checkout itself would be importable.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

SMOKE = """
import sys, importlib.metadata
from pathlib import Path
site = Path(sys.argv[1]).resolve()
import reports, spray, spray.cli, stores, stores.synthetic
for package in (spray, stores, reports):
    assert Path(package.__file__).resolve().is_relative_to(site), package.__file__
assert importlib.metadata.version("spray-audit")
run = stores.synthetic.make("run.zarr")
page = reports.build("run.zarr", "report.html")
assert page.stat().st_size > 100_000
from spray.demo import fashion
assert len(fashion.load().labels) == 10_000
assert "torchvision" not in sys.modules
print("wheel: store, report and embedded images are there")
"""


def main(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    owned = {"spray", "stores", "reports"}
    assert {top for top in tops if not top.endswith(".dist-info")} == owned, tops
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder, "site")
        install = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--target",
            str(site),
            str(wheel),
        ]
        subprocess.run(install, check=True)
        # The wheel's folder comes first, before the editable install of this environment.
        code = f"import sys; sys.path.insert(0, {str(site)!r})\n{SMOKE}"
        subprocess.run([sys.executable, "-P", "-c", code, str(site)], check=True, cwd=folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
