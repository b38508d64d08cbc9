"""Commands of runbooks are commands: shell, AWS, our own programs and SQL take every one of them as it stands."""

from __future__ import annotations

import asyncio
import re
import shlex
import subprocess
from collections.abc import Iterator

import asyncpg
import botocore.session  # type: ignore[import-untyped]
import pytest
from botocore import xform_name

from alerts import runbooks
from drills.harness import ledger_database
from service.__main__ import _parser
from slo import compile_slo
from slo.settings import everything, load
from tests.contract.places import ROOT

SETTINGS = load(ROOT / "pyproject.toml")
DEFINED = everything(SETTINGS)
_BLOCK = re.compile(r"^```sh\n(.*?)\n```$", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`((?:kubectl|aws|redemption-service|select) [^`]+)`")
# Options of the AWS CLI itself: https://docs.aws.amazon.com/cli/latest/reference/#options
_AWS_CLI = {"query", "region", "output"}
_KNOWN = {"amtool", "aws", "curl", "dig", "kubectl", "openssl", "psql", "redemption-service", "valkey-cli"}


def _texts() -> Iterator[str]:
    compiled = [compile_slo(slo) for slo in DEFINED.slos]
    yield from (page.text for page in runbooks.render(compiled, SETTINGS.links, DEFINED))


def _commands() -> list[str]:
    """Every command of every runbook, once: those in blocks, and those within a step."""
    found: dict[str, None] = {}
    for text in _texts():
        for block in _BLOCK.findall(text):
            found |= dict.fromkeys(line for line in block.split("\n") if not line.startswith("#"))
        found |= dict.fromkeys(line for line in _INLINE.findall(text) if not line.startswith("select"))
    return list(found)


COMMANDS = _commands()


def _words(command: str) -> list[str]:
    """The words of its first program, without what is set before it and without redirections."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for word in lexer:
        if word in ("|", "<", ">", ";", "&&"):
            break
        words.append(word)
    while words and re.match(r"[A-Z_]+=", words[0]):
        words.pop(0)
    return words


def test_there_are_commands() -> None:
    """The patterns of these tests find them: those of each program that responders use."""
    assert {_words(command)[0] for command in COMMANDS} == _KNOWN
    assert len(COMMANDS) > 60


def test_a_shell_reads_all_of_them() -> None:
    """No quote is left open, in any of them."""
    for command in COMMANDS:
        done = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True, check=False, timeout=10)
        assert (done.returncode, done.stderr) == (0, ""), command


def test_aws_knows_every_operation_and_option() -> None:
    """By botocore's models of the services, which the AWS CLI is made from."""
    session = botocore.session.get_session()
    asked = [_words(command) for command in COMMANDS if command.startswith("aws ")]
    assert len(asked) > 10
    for _, service, operation, *words in asked:
        model = session.get_service_model(service)
        operations = {xform_name(name, "-"): name for name in model.operation_names}
        assert operation in operations, (service, operation)
        shape = model.operation_model(operations[operation]).input_shape
        known = {xform_name(name, "-") for name in shape.members} if shape else set()
        # The CLI has a pair of words for what is true or false.
        options = {word.removeprefix("--").removeprefix("no-") for word in words if word.startswith("--")}
        assert options <= known | _AWS_CLI, (service, operation, options - known)
        required = {xform_name(name, "-") for name in (shape.required_members if shape else ())}
        assert required <= options, (service, operation, required - options)


def test_our_own_program_takes_its_commands() -> None:
    """Every `redemption-service` command parses, and none begins to serve."""
    asked = [_words(command)[1:] for command in COMMANDS if _words(command)[0] == "redemption-service"]
    assert {words[0] for words in asked} == {"verify", "redrive"}
    for words in asked:
        assert _parser().parse_args(words)


@pytest.mark.e2e
def test_postgres_answers_every_query() -> None:
    """On a database with the ledger's schema; a step's own functions are there, too."""
    asked = [_words(command) for command in COMMANDS if command.startswith("psql ")]
    queries = [words[words.index("--command") + 1] for words in asked]
    assert len(queries) > 4

    async def run(url: str) -> None:
        connection = await asyncpg.connect(url)
        for query in queries:
            await connection.fetch(query)
        for function in sorted({name for text in _texts() for name in re.findall(r"`select (pg_\w+)\(PID\)`", text)}):
            assert await connection.fetchval(f"select {function}(2147483647)") is False
        await connection.close()

    with ledger_database() as database:
        asyncio.run(run(database.owner_url))
