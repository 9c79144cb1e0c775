"""Judges a tracked file by its path: its language and its kind (code, test, doc, lock, vendored, ...)."""

import re
from posixpath import basename, splitext
from typing import Literal

from .text import words

Kind = Literal["code", "test", "doc", "config", "lock", "changelog", "generated", "vendored", "data", "asset", "other"]

CODE_LANGUAGES: dict[str, str] = {
    "Ada": "adb ads",
    "Assembly": "asm s",
    "C": "c h",
    "C#": "cs",
    "C++": "cc cpp cxx hh hpp hxx ipp inl",
    "CSS": "css less sass scss styl",
    "CUDA": "cu cuh",
    "Clojure": "clj cljc cljs",
    "CoffeeScript": "coffee",
    "Crystal": "cr",
    "D": "d",
    "Dart": "dart",
    "Elixir": "ex exs",
    "Elm": "elm",
    "Erlang": "erl hrl",
    "F#": "fs fsi fsx",
    "Fortran": "f f03 f08 f90 f95 for",
    "GLSL": "frag glsl vert",
    "Go": "go",
    "Groovy": "gradle groovy",
    "HCL": "hcl tf",
    "HTML": "htm html xhtml",
    "Haskell": "hs lhs",
    "Java": "java",
    "JavaScript": "cjs js jsx mjs",
    "Julia": "jl",
    "Kotlin": "kt kts",
    "Lisp": "el lisp rkt scm",
    "Lua": "lua",
    "Meson/CMake": "cmake",
    "Nim": "nim",
    "Nix": "nix",
    "OCaml": "ml mli",
    "Objective-C": "m mm",
    "PHP": "php phtml",
    "Pascal": "pas pp",
    "Perl": "pl pm",
    "PowerShell": "ps1 psm1",
    "Protocol Buffers": "proto",
    "Python": "py pyi pyx pxd",
    "R": "r",
    "Ruby": "erb gemspec rake rb",
    "Rust": "rs",
    "SQL": "sql",
    "Scala": "sbt scala",
    "Shell": "bash bats fish sh zsh",
    "Solidity": "sol",
    "Svelte": "svelte",
    "Swift": "swift",
    "Tcl": "tcl",
    "Template": "ejs haml hbs j2 jinja jinja2 mustache njk tmpl twig",
    "TypeScript": "cts mts ts tsx",
    "V/Verilog": "sv v vh",
    "VHDL": "vhd vhdl",
    "Vim script": "vim",
    "Visual Basic": "bas vb",
    "Vue": "vue",
    "Zig": "zig",
}
DOC_LANGUAGES = {"AsciiDoc": "adoc asciidoc", "Markdown": "markdown md mdx", "reStructuredText": "rst", "TeX": "tex"}
DOC_LANGUAGES |= {"Text": "txt", "Org": "org"}
CONFIG_LANGUAGES = {"INI": "cfg conf ini properties editorconfig", "JSON": "json json5 jsonc", "TOML": "toml"}
CONFIG_LANGUAGES |= {"XML": "plist xml xsd xsl xslt", "YAML": "yaml yml", "Dotenv": "env"}
DATA_LANGUAGES = {"CSV": "csv tsv", "Translation": "po pot", "Notebook": "ipynb", "SVG": "svg", "Log": "log"}
DATA_LANGUAGES |= {"Patch": "diff patch", "Snapshot": "snap", "JSON lines": "jsonl ndjson"}

KNOWN_NAMES = {
    "dockerfile": "Dockerfile",
    "containerfile": "Dockerfile",
    "makefile": "Makefile",
    "gnumakefile": "Makefile",
    "cmakelists.txt": "Meson/CMake",
    "meson.build": "Meson/CMake",
    "rakefile": "Ruby",
    "gemfile": "Ruby",
    "vagrantfile": "Ruby",
    "jenkinsfile": "Groovy",
    "build.bazel": "Starlark",
    "justfile": "Makefile",
    "procfile": "YAML",
}

LOCK_FILES = words(
    "package-lock.json npm-shrinkwrap.json yarn.lock pnpm-lock.yaml bun.lock bun.lockb deno.lock poetry.lock pdm.lock uv.lock "
    "pipfile.lock cargo.lock go.sum gemfile.lock composer.lock mix.lock pubspec.lock podfile.lock packages.lock.json "
    "gradle.lockfile flake.lock package.resolved conan.lock .terraform.lock.hcl go.work.sum pixi.lock"
)
VENDOR_FOLDERS = words(
    "node_modules bower_components vendor vendored _vendor third_party third-party thirdparty 3rdparty jspm_packages"
)
_VENDOR_FOLDERS_AT_TOP = words("deps extern external externals")  # deeper in the tree folders with these names often hold own code
_TEST_FOLDERS = words(
    "test tests testing testsuite spec specs __tests__ __mocks__ e2e fixtures fixture testdata test-data test_data"
)
_EXAMPLE_FOLDERS = words("example examples sample samples demo demos doc docs documentation tutorial tutorials")
_ASSETS = words(
    "png jpg jpeg gif webp ico bmp tif tiff avif heic svgz psd ai eps ttf otf woff woff2 eot mp3 mp4 ogg wav flac webm mov avi "
    "pdf doc docx xls xlsx ppt pptx odt"
)
_TEST_NAME = re.compile(
    r"^(test_.+|tests?|conftest)\.\w+$|^.+[._-](test|tests|spec|specs)\.\w+$|^.+[a-z0-9](Test|Tests|Spec|IT)\.(java|kt|scala|cs|swift|groovy|php)$"
)
_CHANGELOG = re.compile(r"^(changes|changelog|history|news|release[-_ ]?notes|releases|authors|contributors)(\.\w+)?$", re.I)
_GENERATED = re.compile(
    r"(\.min\.(js|css)|\.(js|css)\.map|\.pb\.(go|cc|h|rb)|_pb2(_grpc)?\.pyi?|\.g\.dart|\.freezed\.dart|\.generated\.\w+|[._]gen\.(go|ts)"
    r"|\.designer\.cs|zz_generated\..+|\.bundle\.js)$",
    re.I,
)
# Marks of generated files in their first lines: the Go and Phabricator conventions, and common wording.
GENERATED_MARK = re.compile(rb"@generated|(?i:code|file|automatically|auto-?)[ -]generated (?i:by|from|file)|DO NOT EDIT")


def _by_extension(*tables: dict[str, str]) -> dict[str, str]:
    return {extension: language for table in tables for language, names in table.items() for extension in names.split()}


_LANGUAGE = _by_extension(CODE_LANGUAGES, DOC_LANGUAGES, CONFIG_LANGUAGES, DATA_LANGUAGES)
_KIND_OF_LANGUAGE: dict[str, Kind] = {
    **dict.fromkeys(CODE_LANGUAGES, "code"),
    **dict.fromkeys(DOC_LANGUAGES, "doc"),
    **dict.fromkeys(CONFIG_LANGUAGES, "config"),
    **dict.fromkeys(DATA_LANGUAGES, "data"),
    "Dockerfile": "code",
    "Makefile": "code",
    "Starlark": "code",
}


def extension(path: str) -> str:
    """The lower-case extension without the dot; '' if there is none (a leading dot makes no extension)."""
    return splitext(basename(path))[1][1:].lower()


def language(path: str) -> str | None:
    """The language that the file name shows. None if the name shows no language."""
    name = basename(path).lower()
    if name in KNOWN_NAMES:
        return KNOWN_NAMES[name]
    if name.startswith(("dockerfile.", "makefile.")):
        return "Dockerfile" if name[0] == "d" else "Makefile"
    return _LANGUAGE.get(extension(path))


def folders(path: str) -> list[str]:
    return path.lower().split("/")[:-1]


def vendored_root(path: str) -> str | None:
    """The outermost folder of other people's code that holds the path (`web/node_modules`). None if there is none."""
    parts = path.split("/")
    for depth, part in enumerate(parts[:-1]):
        if part.lower() in VENDOR_FOLDERS or (depth == 0 and part.lower() in _VENDOR_FOLDERS_AT_TOP):
            return "/".join(parts[: depth + 1])
    return None


def is_test(path: str) -> bool:
    return bool(_TEST_FOLDERS.intersection(folders(path)) or _TEST_NAME.match(basename(path)))


def is_example(path: str) -> bool:
    """Whether the path is in samples or documentation. Credentials there are often made up for an explanation."""
    return bool(_EXAMPLE_FOLDERS.intersection(folders(path))) or kind_by_name(path) == "doc"


def is_lock(path: str) -> bool:
    return basename(path).lower() in LOCK_FILES


def kind_by_name(path: str) -> Kind:
    """The kind of a file by its name alone, wherever the file lies."""
    found = language(path)
    if found is not None:
        return _KIND_OF_LANGUAGE[found]
    if extension(path) in _ASSETS:
        return "asset"
    return "other"


def kind(path: str) -> Kind:
    """The kind of a tracked file. The place and the conventions of the name come first, then the language."""
    if is_lock(path):
        return "lock"
    if vendored_root(path) is not None:
        return "vendored"
    if _GENERATED.search(path):
        return "generated"
    named = kind_by_name(path)
    if _CHANGELOG.match(basename(path)) and named in ("doc", "other"):
        return "changelog"
    if named == "code" and is_test(path):
        return "test"
    return named
