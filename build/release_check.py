"""`make release-check`: may what `make package` made be published. All complaints at once."""

import re
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

from build import content, release
from build.documents import APPLICATION, NAMES, OLDEST_UNRAID, PLG, PROFILE
from build.locks import sha256
from build.package import LARGEST_PACKED
from build.places import DIST, NAME, RELEASE, REPOSITORY
from build.programs import BuildFailed, run
from build.release import Publisher

Element = ElementTree.Element


def complaints(packages: Path, documents: Path, publisher: Publisher) -> Iterator[str]:
    """Yield all that is wrong with a package, and with the documents that name it."""
    version = release.version()
    package = packages / release.package_file(version)
    missing = [
        path.name for path in (package, *(documents / n for n in NAMES)) if not path.exists()
    ]
    if missing:
        yield f"{', '.join(missing)}: not there, run `make package`"
        return
    for name in publisher.missing:
        yield f"build/{RELEASE.name}: {name} is empty"
    changelog = (REPOSITORY / "CHANGELOG.md").read_text()
    yield from complaints_of_changes(version, changelog)
    plg, application, profile = (_root(documents / name) for name in (PLG, APPLICATION, PROFILE))
    yield from complaints_of_plg(plg, package, version, publisher)
    if not publisher.missing:
        yield from complaints_of_links(plg, application, profile)
    yield from complaints_of_repository()
    yield from complaints_of_package(package, version)


def complaints_of_changes(version: str, changelog: str) -> Iterator[str]:
    """Yield what is wrong with CHANGELOG.md: each version once, newest first, this one on top."""
    sections = release.sections(changelog)
    versions = [name for name in sections if name != release.UNRELEASED]
    if sections.get(release.UNRELEASED):
        yield f"CHANGELOG.md: what is under {release.UNRELEASED} belongs under {version}"
    if not versions or versions[0] != version:
        yield f"CHANGELOG.md: the first version is not {version}, that of the program"
    for newer, older in pairwise(versions):
        if newer <= older:  # as texts, which is how Unraid compares them
            yield f"CHANGELOG.md: {newer} comes before {older}, and is not newer"
    for name in versions:
        if not release.VERSION.fullmatch(name):
            yield f"CHANGELOG.md: {name} is not a version: YYYY.MM.DD, with a letter at most"
        if not sections[name]:
            yield f"CHANGELOG.md: nothing is said of {name}"


def complaints_of_plg(
    plg: Element, package: Path, version: str, publisher: Publisher
) -> Iterator[str]:
    """Yield what is wrong with the plugin's file, beside the package that it names."""
    wanted = {
        "name": NAME,
        "version": version,
        "min": OLDEST_UNRAID,
        "launch": "Settings/VMBabysitter",
        "author": publisher.author,
        "pluginURL": publisher.plugin_url,
        "support": publisher.support,
    }
    for key, value in wanted.items():
        if plg.get(key) != value:
            yield f"{PLG}: {key} is {plg.get(key)!r}, not {value!r}: run `make package` again"
    if version not in (plg.findtext("CHANGES") or ""):
        yield f"{PLG}: CHANGES does not speak of {version}"
    named = [file for file in plg.findall("FILE") if file.find("URL") is not None]
    if not named:
        yield f"{PLG}: names no package"
    digest = sha256(package)
    for file in named:
        url = (file.findtext("URL") or "").strip()
        if not (
            url.endswith(f"/{package.name}") and (file.get("Name") or "").endswith(package.name)
        ):
            yield f"{PLG}: names {url}, not {package.name}"
        if (file.findtext("SHA256") or "").strip() != digest:
            yield f"{PLG}: the digest is not that of {package.name}: run `make package` again"


def complaints_of_links(plg: Element, application: Element, profile: Element) -> Iterator[str]:
    """Yield which addresses are none, or differ where they have to be the same."""
    if application.findtext("PluginURL") != plg.get("pluginURL"):
        yield f"{APPLICATION}: PluginURL is not the pluginURL of {PLG}"
    links = {f"{PLG}: {key}": plg.get(key) for key in ("pluginURL", "support")} | {
        f"{name}: {key}": root.findtext(key)
        for name, root, keys in (
            (APPLICATION, application, ("PluginURL", "Support", "Project", "Icon", "TemplateURL")),
            (PROFILE, profile, ("Icon", "WebPage", "Forum")),
        )
        for key in keys
    }
    for url in plg.findall("FILE/URL"):
        links[f"{PLG}: URL"] = url.text
    for name, link in links.items():
        if not re.fullmatch(r"https://[\w.-]+/\S+", (link or "").strip()):
            yield f"{name} is {link!r}, not an address that begins with https://"


def complaints_of_repository() -> Iterator[str]:
    """Yield the files that Community Applications would take for one of its own."""
    for path in run("git", "ls-files", "-z", "*.xml", folder=REPOSITORY).split("\0"):
        if path and path not in NAMES:
            yield f"{path}: Community Applications would read it; give it another ending"


def complaints_of_package(package: Path, version: str) -> Iterator[str]:
    """Yield what is wrong with a package."""
    if package.stat().st_size > LARGEST_PACKED:
        yield f"{package.name}: {package.stat().st_size} bytes are too many"
    with tempfile.TemporaryDirectory() as root:
        with tarfile.open(package) as archive:
            yield from content.complaints_of_entries(archive, release.moment(version))
        run("tar", "--extract", "--file", package, "--directory", root)
        yield from content.complaints_of_files(Path(root))


def _root(path: Path) -> Element:
    return ElementTree.parse(path).getroot()  # noqa: S314 - we have written it


def main() -> int:
    """Print all complaints; 1 if there are any."""
    found = list(complaints(DIST, REPOSITORY, release.publisher()))
    sys.stdout.write("".join(f"release-check: {line}\n" for line in found))
    if not found:
        sys.stdout.write(f"release-check: {release.version()} may be published\n")
    return 1 if found else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BuildFailed as e:
        sys.exit(f"release-check: {e}")
