"""Packages of local files, and what is in them."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING

from airflow_provider_rayjobs.packaging.package import Package, pack_folder
from airflow_provider_rayjobs.packaging.spool import spooled

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1024 * 1024


def packed(folder: Path, *excludes: str, inside: bool = False) -> Package:
    """Return the package of a folder, as for a ``working_dir``; ``inside``, as for a module."""
    return pack_folder(str(folder), excludes, [".gitignore", ".rayignore"], inside=inside)


def content(package: Package, limit: int = 100 * MIB) -> bytes:
    """Return what is uploaded of a package."""
    with spooled(package, limit) as spool:
        return b"".join(spool.opened())


def opened(package: Package) -> zipfile.ZipFile:
    """Open a package as the zip file that it is."""
    return zipfile.ZipFile(io.BytesIO(content(package)))
