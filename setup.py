"""What setup.cfg cannot say: a wheel holds the tools and the configs inside the package, where `sak` finds them."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = {"tools": "*.py", "configs": "*.yaml"}  # folders of the checkout: what of them is needed


class BuildWithShipped(build_py):
    def run(self):
        super().run()
        for folder, pattern in SHIPPED.items() if not self.editable_mode else ():
            inside = Path(self.build_lib, "sak", folder)
            shutil.rmtree(inside, ignore_errors=True)  # of an earlier build
            for file in Path(folder).rglob(pattern):
                target = inside / file.relative_to(folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)


setup(cmdclass={"build_py": BuildWithShipped})
