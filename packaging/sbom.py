#!/usr/bin/env python3
"""The bill of materials of a build, as CycloneDX 1.6: every crate that becomes part of the program, the C libraries that crates
carry within them, their licences and checksums. The same tree and features give the same text.
Usage: sbom.py [FEATURES], as `--features` takes them; writes to stdout. Needs cargo, and the crates of Cargo.lock at hand."""

import hashlib
import json
import pathlib
import re
import subprocess
import sys
import tomllib
import uuid

ROOT = pathlib.Path(__file__).resolve().parent.parent
# C libraries within crates: the crate, the header that names the version, how it does, and the library's licence.
BUNDLED = {
    "libsqlite3-sys": ("sqlite", "sqlite3/sqlite3.h", r'#define SQLITE_VERSION\s+"([\d.]+)"', "blessing"),
    "zstd-sys": ("zstd", "zstd/lib/zstd.h", r"#define ZSTD_VERSION_(?:MAJOR|MINOR|RELEASE)\s+(\d+)", "BSD-3-Clause"),
    "rdkafka-sys": ("librdkafka", "librdkafka/CHANGELOG.md", r"\A# librdkafka v([\d.]+\d)", "BSD-2-Clause"),
}


def metadata(features):
    host = re.search(r"host: (\S+)", subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout)[1]
    words = ["cargo", "metadata", "--format-version=1", "--locked", f"--filter-platform={host}", f"--features={features}"]
    return json.loads(subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)


def linked(root, nodes):
    """What the program is made of: what is reached without what only builds or tests it."""
    found, open_ends = {}, [root]
    while open_ends:
        node = nodes[open_ends.pop()]
        if node["id"] in found or "proc-macro" in node["kinds"]:
            continue
        found[node["id"]] = sorted(dep["pkg"] for dep in node["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"]))
        open_ends += found[node["id"]]
    return {one: [dep for dep in deps if dep in found] for one, deps in found.items()}


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, checksums):
    found = {"type": "library", "bom-ref": purl(package), "name": package["name"], "version": package["version"], "purl": purl(package)}
    if checksum := checksums.get((package["name"], package["version"])):
        found["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package["license"]:
        # A slash is how crates wrote OR before there was a standard.
        found["licenses"] = [{"expression": re.sub(r"\s*/\s*", " OR ", package["license"])}]
    if package["repository"]:
        found["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return found


def bundled(package):
    """The C library within a crate, if there is one."""
    if package["name"] not in BUNDLED:
        return None
    name, header, pattern, licence = BUNDLED[package["name"]]
    text = (pathlib.Path(package["manifest_path"]).parent / header).read_text(errors="replace")
    version = ".".join(re.findall(pattern, text)[:3])
    assert version, f"{package['name']}: {header} does not say which {name} it is"
    reference = f"pkg:generic/{name}@{version}"
    return {"type": "library", "bom-ref": reference, "name": name, "version": version, "purl": reference,
            "licenses": [{"license": {"id": licence}}]}


def bill(features):
    described = metadata(features)
    packages = {package["id"]: package for package in described["packages"]}
    for node in (nodes := {node["id"]: node for node in described["resolve"]["nodes"]}).values():
        node["kinds"] = [kind for target in packages[node["id"]]["targets"] for kind in target["kind"]]
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    checksums = {(one["name"], one["version"]): one.get("checksum") for one in lock["package"]}
    root = described["resolve"]["root"]
    graph = linked(root, nodes)
    components, dependencies = [], []
    for one in sorted(graph, key=lambda one: purl(packages[one])):
        depends = [purl(packages[dep]) for dep in graph[one]]
        if library := bundled(packages[one]):
            components.append(library)
            dependencies.append({"ref": library["bom-ref"], "dependsOn": []})
            depends.append(library["bom-ref"])
        if one != root:
            components.append(component(packages[one], checksums))
        dependencies.append({"ref": purl(packages[one]), "dependsOn": sorted(set(depends))})
    whole = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
             "metadata": {"component": component(packages[root], checksums) | {"type": "application"}},
             "components": components, "dependencies": dependencies}
    digest = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
    return {**whole, "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest)}"}


json.dump(bill(sys.argv[1] if len(sys.argv) > 1 else ""), sys.stdout, indent=1)
print()
