#!/usr/bin/env python3
"""Shows that the tests have teeth: plants each deliberate mistake of mutants.toml and demands that its tests fail.

All mistakes are built into one copy of the tree, each behind a switch that the environment turns, so that there is one
build and not one for each. The copy lies in the target directory and is built with what is built there already.
Usage: run.py [--target DIR] [NAME…]; needs python 3.11 and cargo."""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
TREE = HERE.parent.parent
# A test that takes longer than this does not end: the slowest takes a second.
PATIENCE = 60
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


def copy(target):
    """A copy of the tree, at the same place every time, so that only what has changed is compiled."""
    tree = target / "mutants" / "sparkspool"
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(TREE, tree, ignore=shutil.ignore_patterns("target", ".git", "sparkspool-demo"))
    # Cargo takes two trees with the same package in one target directory for one, and would run tests of the one with
    # what it built of the other. Another version is another package.
    for name in ["Cargo.toml", "Cargo.lock"]:
        text = (tree / name).read_text()
        (tree / name).write_text(re.sub(r'(?m)^(name = "sparkspool"\nversion = "[^"+]*)"', r'\1+mutants"', text, count=1))
    return tree


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
    """The library's tests with all mistakes in them."""
    command = ["cargo", "test", "--no-run", "--locked", "--lib", "--message-format=json-render-diagnostics"]
    # With the flags of every other build: the dependencies are built already. Warnings about the mistakes are no news.
    environment = dict(os.environ, CARGO_TARGET_DIR=str(target))
    built = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    if built.returncode:
        sys.exit(f"the mistakes do not compile\n{built.stderr}")
    artifacts = [json.loads(line) for line in built.stdout.splitlines()]
    return next(a["executable"] for a in artifacts if a.get("profile", {}).get("test") and a.get("executable"))


def outcomes(tree, program, tests, mutant):
    """What became of each of `tests` while `mutant` is turned on: "ok", "FAILED", or nothing where it never ended."""
    environment = dict(os.environ, SPARKSPOOL_MUTANT=mutant, INSTA_UPDATE="no", RUST_BACKTRACE="0")
    command = [program, "--exact", *tests]
    try:
        said = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=PATIENCE).stdout
    except subprocess.TimeoutExpired as late:
        said = (late.stdout or b"").decode()
    lines = [line.split() for line in said.splitlines() if line.startswith("test ") and " ... " in line]
    return {words[1]: words[-1] for words in lines}


def documented(mutants):
    """Demands that docs/correctness.md says of each mistake which tests notice it."""
    text = (TREE / "docs/correctness.md").read_text()
    for mutant in mutants:
        tests = "<br>".join(f"`{test}`" for test in mutant["caught_by"])
        row = f"| `{mutant['name']}` | {mutant['mistake']} | {tests} |"
        if row not in text:
            sys.exit(f"docs/correctness.md has no line\n{row}")


def main():
    begun = time.monotonic()
    arguments = argparse.ArgumentParser()
    arguments.add_argument("names", nargs="*")
    arguments.add_argument("--target", default=os.environ.get("CARGO_TARGET_DIR", str(TREE / "target")))
    options = arguments.parse_args()
    mutants = tomllib.loads((HERE / "mutants.toml").read_text())["mutant"]
    chosen = [m for m in mutants if not options.names or m["name"] in options.names]
    if unknown := set(options.names) - {m["name"] for m in chosen}:
        sys.exit(f"there is no mistake called {', '.join(sorted(unknown))}")
    documented(mutants)
    target = pathlib.Path(options.target).resolve()
    tree = copy(target)
    plant(tree, mutants)
    program = build(tree, target)
    print(f"built in {time.monotonic() - begun:.0f} s", flush=True)
    tests = sorted({test for m in chosen for test in m["caught_by"]})
    sound = outcomes(tree, program, tests, "none")
    if unsound := [test for test in tests if sound.get(test) != "ok"]:
        sys.exit(f"without a mistake these tests do not pass, or there are none of that name: {', '.join(unsound)}")
    survivors = []
    for mutant in chosen:
        since = time.monotonic()
        found = outcomes(tree, program, mutant["caught_by"], mutant["name"])
        blind = [test for test in mutant["caught_by"] if found.get(test) == "ok"]
        told = f"NOT NOTICED by {', '.join(blind)}" if blind else "noticed"
        print(f"{mutant['name']:34} {told} ({time.monotonic() - since:.1f} s)", flush=True)
        if blind:
            survivors.append(mutant["name"])
    if survivors:
        sys.exit(f"{len(survivors)} of {len(chosen)} mistakes are not noticed: {', '.join(survivors)}")
    print(f"all {len(chosen)} mistakes are noticed by the tests that are aimed at them, in {time.monotonic() - begun:.0f} s")


main()
