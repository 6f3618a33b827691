"""The one thing that pyproject.toml cannot say; everything else is there.

The folder dataset_conversion is installed as colipri.dataset_conversion. The symbolic link in
colipri/ is for mypy and for a checkout on Python's path; an installation does without it.
"""

from setuptools import find_packages, setup

LIBRARY = find_packages(include=["colipri", "colipri.*"], exclude=["colipri.dataset_conversion*"])
CONVERTERS = find_packages(include=["dataset_conversion", "dataset_conversion.*"])

setup(
    packages=[*LIBRARY, *(f"colipri.{name}" for name in CONVERTERS)],
    package_dir={"colipri.dataset_conversion": "dataset_conversion"},
)
