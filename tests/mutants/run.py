#!/usr/bin/env python3
"""Shows that the tests have teeth: plants each deliberate mistake of mutants.toml and demands that a test fails.

All mistakes are built into one copy of the tree, each behind a switch that the environment turns, so that there is one
build and not one for each. Usage: run.py [--target DIR] [NAME…]; needs python 3.11 and cargo."""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
TREE = HERE.parent.parent
SWITCH = '''
/// Which deliberate mistake is turned on.
pub mod mutants {
    /// Whether it is the one called `name`.
    pub fn on(name: &str) -> bool {
        static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
        CHOSEN.get_or_init(|| std::env::var("SPARKSPOOL_MUTANT").ok()).as_deref() == Some(name)
    }
}
'''


def plant(tree, mutants):
    for mutant in mutants:
        path = tree / mutant["file"]
        text = path.read_text()
        find = mutant["find"].strip("\n")
        if text.count(find) != 1:
            sys.exit(f"{mutant['name']}: its text stands {text.count(find)} times in {mutant['file']}, not once")
        switch = f'(if crate::mutants::on("{mutant["name"]}") {{ {mutant["replace"].strip()} }} else {{ {find} }})'
        path.write_text(text.replace(find, switch))
    lib = tree / "src/lib.rs"
    lib.write_text(lib.read_text() + SWITCH)


def build(tree, target):
    command = ["cargo", "test", "--no-run", "--locked", "--message-format=json-render-diagnostics", "--lib", "--bins", "--test", "it"]
    # With the flags of every other build: the dependencies are built already. Warnings about the mistakes are no news.
    environment = dict(os.environ, CARGO_TARGET_DIR=str(target))
    built = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    if built.returncode:
        sys.exit(f"the mistakes do not compile\n{built.stderr}")
    programs = {}
    for line in built.stdout.splitlines():
        artifact = json.loads(line)
        if artifact.get("profile", {}).get("test") and artifact.get("executable"):
            programs[artifact["target"]["kind"][0]] = artifact["executable"]
    return {"lib": programs["lib"], "it": programs["test"]}


def fails(tree, programs, tests, mutant):
    """The first of `tests` that fails, if any: "lib NAME…" or "it NAME…", with NAME=VALUE before it for the environment."""
    for test in tests:
        words = test.split()
        settings = dict(word.split("=") for word in words if "=" in word)
        kind, *names = [word for word in words if "=" not in word]
        environment = dict(os.environ, SPARKSPOOL_MUTANT=mutant, INSTA_UPDATE="no", RUST_BACKTRACE="0", **settings)
        try:
            ran = subprocess.run([programs[kind], *names], cwd=tree, env=environment, capture_output=True, text=True, timeout=300)
        except subprocess.TimeoutExpired:
            return "it never ends"
        if " 0 passed; 0 failed" in ran.stdout:
            sys.exit(f"{test}: there is no such test")
        if ran.returncode:
            if mutant == "none":
                print(ran.stdout[-4000:])
            failed = [line.split()[1] for line in ran.stdout.splitlines() if line.startswith("test ") and "FAILED" in line]
            return failed[0] if failed else f"exit {ran.returncode}"
    return None


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("names", nargs="*")
    arguments.add_argument("--target", default=os.environ.get("CARGO_TARGET_DIR", str(TREE / "target")))
    options = arguments.parse_args()
    mutants = tomllib.loads((HERE / "mutants.toml").read_text())["mutant"]
    chosen = [m for m in mutants if not options.names or m["name"] in options.names]
    survivors = []
    with tempfile.TemporaryDirectory() as scratch:
        tree = pathlib.Path(scratch) / "sparkspool"
        shutil.copytree(TREE, tree, ignore=shutil.ignore_patterns("target", ".git", "sparkspool-demo"))
        plant(tree, mutants)
        programs = build(tree, pathlib.Path(options.target))
        tests = sorted({test for m in chosen for test in m["caught_by"]})
        if found := fails(tree, programs, tests, "none"):
            sys.exit(f"without a mistake {found} fails")
        for mutant in chosen:
            begun = time.monotonic()
            caught = fails(tree, programs, mutant["caught_by"], mutant["name"])
            print(f"{mutant['name']:34} {'caught by ' + caught if caught else 'SURVIVED'} ({time.monotonic() - begun:.0f} s)", flush=True)
            if not caught:
                survivors.append(mutant["name"])
    if survivors:
        sys.exit(f"{len(survivors)} of {len(chosen)} mistakes are not noticed: {', '.join(survivors)}")
    print(f"all {len(chosen)} mistakes are noticed")


main()
