"""The validator behind ``schema.validate``: every problem of a configuration at once, one line each, without torch."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import operator
import re
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from randomix import mixers
from randomix.engine.rules import Rule, is_mixer_path, is_real, micro_batch_sizes, rule_for

_MISSING = "???"


def nearest(word: str, options: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The option most like a word, if any is like it at all."""
    word = {"gpu": "cuda"}.get(word, word)
    found = difflib.get_close_matches(word, list(options), n=1, cutoff=cutoff)
    return found[0] if found else None


def show(value: Any) -> str:
    """A value as it is written on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ",".join(show(v) for v in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{k}:{show(v)}" for k, v in value.items()) + "}"
    return str(value)


def names_text(what: str, options: Iterable[str], given: str) -> str:
    """``must be one of a, b; did you mean b?``"""
    options = sorted(options)
    near = nearest(given, options)
    return f"must be one of {', '.join(options) or f'no {what}'}" + (f"; did you mean {near}?" if near else "")


@functools.cache
def _source(name: str) -> list[ast.AST]:
    """The nodes of a method's file, read from its source so that nothing is imported."""
    return list(ast.walk(ast.parse(Path(mixers.__path__[0], f"{name}.py").read_text(encoding="utf-8"))))


def _initialisers(name: str) -> list[ast.arguments]:
    """The arguments of each __init__ in a method's file."""
    return [node.args for node in _source(name) if isinstance(node, ast.FunctionDef) and node.name == "__init__"]


@functools.cache
def needs_network(name: str) -> bool:
    """Whether a method cannot mix a batch alone: it stands on the classes of ``base_network``."""
    return any(isinstance(n, ast.ImportFrom) and n.module == "randomix.mixers.base_network" for n in _source(name))


@functools.cache
def mixer_arguments(name: str) -> frozenset[str] | None:
    """What the class of a method takes; None: anything."""
    if any(arguments.kwarg for arguments in _initialisers(name)):
        return None
    return frozenset(a.arg for i in _initialisers(name) for a in _named_arguments(i)) - {"self", "num_classes"}


@functools.cache
def annotated_rules(name: str) -> dict[str, Rule]:
    """Rules from the annotations of a method's arguments, where they are bool, int, float or str, or null beside."""
    named = [a for i in _initialisers(name) for a in _named_arguments(i) if a.annotation is not None]
    hints = {a.arg: _simple_hint(ast.unparse(a.annotation)) for a in named if a.annotation is not None}
    return {key: Rule(hint) for key, hint in hints.items() if hint is not None}


def _named_arguments(arguments: ast.arguments) -> list[ast.arg]:
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]


def _simple_hint(text: str) -> Any:
    """A type from its source: ``float``, ``str | None``, ``Optional[int]``; None for everything else."""
    inner = re.fullmatch(r"(?:typing\.)?Optional\[(.*)\]", text)
    names = {n.strip() for n in (inner[1] + " | None" if inner else text).strip("'\"").split("|")}
    simple = [hint for hint in (bool, int, float, str) if hint.__name__ in names]
    if not simple or len(simple) < len(names - {"None"}):
        return None
    hint = functools.reduce(operator.or_, simple)
    return hint | None if "None" in names else hint


def setting_rules(path: str, section: Mapping[str, Any]) -> dict[str, Rule]:
    """The rule of each key of a section that has one; a method of one's own has those of its annotations."""
    name = section.get("name")
    is_mixer = is_mixer_path(path) and isinstance(name, str) and name in mixers.available()
    rules = dict(annotated_rules(name)) if is_mixer and isinstance(name, str) else {}
    for key in section:
        rule = rule_for(f"{path}.{key}" if path else str(key), name)
        if rule is not None and rules.get(key, rule).hint == rule.hint:  # else it only has the name in common
            rules[key] = rule
    return rules


def check(config: Mapping[str, Any], schema: type, known: Mapping[str, Mapping[str, frozenset[str]]]) -> list[str]:
    """All problems; see ``schema.validate``."""
    return _Check(config, schema, known).run()


class _Check:
    """One pass over one configuration; ``problems`` grows in the order of the schema's fields."""

    def __init__(self, config: Mapping[str, Any], schema: type, known: Mapping[str, Mapping[str, Any]]) -> None:
        self.config, self.schema, self.known = config, schema, known
        self.hints = typing.get_type_hints(schema)
        self.problems: list[str] = []

    def run(self) -> list[str]:
        self._keys("", self.config, self.hints)
        for field in dataclasses.fields(self.schema):
            hint, section = self.hints[field.name], self.config.get(field.name)
            if field.name not in self.config:
                if _required(field):
                    self._say(f"{field.name}: missing; choose one with {field.name}=NAME")
            elif hint == dict[str, Any] or dataclasses.is_dataclass(hint):
                self._section(field.name, hint, section)
            else:
                self._value(field.name, section, rule_for(field.name))
        self._across()
        if "recipe" in self.hints:
            self._recipe()
        return self.problems

    def _say(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)

    def _section(self, path: str, hint: Any, section: Any) -> None:
        if not isinstance(section, Mapping):
            self._say(f"{path}={show(section)}: must be a group of settings; choose one with {path}=NAME")
        elif path == "mixer":
            self._mixer(path, section)
        elif path == "evaluator":
            for name, settings in section.items():
                self._named(f"{path}.{name}", name, settings, self.known.get(path))
        elif dataclasses.is_dataclass(hint):
            fields = dataclasses.fields(hint)
            self._keys(path, section, [f.name for f in fields])
            for field in fields:
                if field.name not in section and _required(field):
                    self._say(f"{path}.{field.name}: missing")
            self._values(path, section)
        elif "name" not in section:
            self._say(f"{path}.name: missing")
        else:
            self._named(path, section["name"], section, self.known.get(path))

    def _named(self, path: str, name: Any, section: Any, known: Mapping[str, frozenset[str]] | None) -> None:
        """Settings that belong to a name: a data set, a network, a tracker, an evaluator."""
        if not isinstance(section, Mapping):
            self._say(f"{path}={show(section)}: must be a group of settings")
            return
        if known is not None and name not in known:
            kind = path.partition(".")[0]
            where = path if path.startswith("evaluator.") else f"{path}.name={show(name)}"
            self._say(f"{where}: {names_text(kind, known, str(name))}")
            return
        if known is not None:
            self._keys(path, section, known[name])
        self._values(path, section)

    def _mixer(self, path: str, section: Mapping[str, Any]) -> None:
        if not isinstance(section.get("name"), str):
            self._say(
                f"{path}.name: missing" if "name" not in section else f"{path}.name: must be the name of a method"
            )
            return
        name = section["name"]
        if name not in mixers.available():
            self._say(f"{path}.name={name}: {names_text('method', mixers.available(), name)}")
            return
        accepted = mixer_arguments(name)
        if accepted is not None:
            self._keys(path, section, accepted | {"name", "label"})
        self._values(path, {k: v for k, v in section.items() if k != "candidates"})
        if "candidates" in section:
            self._candidates(path, section["candidates"], section.get("weights"), section.get("granularity"))

    def _candidates(self, path: str, candidates: Any, weights: Any, granularity: Any) -> None:
        if not isinstance(candidates, list) or not candidates:
            self._say(f"{path}.candidates={show(candidates)}: must be a list of methods with at least one entry")
            return
        for i, candidate in enumerate(candidates):
            if isinstance(candidate, Mapping):
                self._mixer(f"{path}.candidates[{i}]", candidate)
            elif candidate not in mixers.available():
                text = names_text("method", mixers.available(), str(candidate))
                self._say(f"{path}.candidates[{i}]={show(candidate)}: {text}")
        names = [c.get("name") if isinstance(c, Mapping) else c for c in candidates]
        inside = [name for name in names if name in mixers.available() and needs_network(str(name))]
        if granularity == "sample" and inside:
            self._say(
                f"{path}.granularity=sample: not with {', '.join(inside)}, which need the network to mix; "
                f"set {path}.granularity=batch"
            )
        if isinstance(weights, list) and len(weights) != len(candidates):
            self._say(f"{path}.weights has {len(weights)} entries but {path}.candidates has {len(candidates)}")

    def _keys(self, path: str, section: Mapping[str, Any], accepted: Iterable[str]) -> None:
        accepted = list(accepted)
        for key in section:
            if key in accepted:
                continue
            full = f"{path}.{key}" if path else str(key)
            near = self._near(path, str(key), accepted)
            if near:
                self._say(f"{full}: unknown key; did you mean {near}?")
            else:
                self._say(f"{full}: unknown key; {path or 'a run'} has {', '.join(sorted(accepted)) or 'no settings'}")

    def _near(self, path: str, key: str, accepted: list[str]) -> str | None:
        """The key that was meant: alike in the same section, else of the same name in another one."""
        near = nearest(key, accepted)
        if near:
            return f"{path}.{near}" if path else near
        elsewhere = [f"{s}.{k}" for s, v in self.config.items() if isinstance(v, Mapping) and s != path for k in v]
        typed = {s: dataclasses.fields(h) for s, h in self.hints.items() if dataclasses.is_dataclass(h)}
        elsewhere += [f"{s}.{field.name}" for s, fields in typed.items() for field in fields]
        leaves = {e.rpartition(".")[2]: e for e in elsewhere if e.rpartition(".")[2] != "name"}
        leaf = nearest(key.rpartition(".")[2], leaves, cutoff=0.8)
        return leaves[leaf] if leaf and leaves[leaf] != f"{path}.{key}" else None

    def _values(self, path: str, section: Mapping[str, Any]) -> None:
        rules = setting_rules(path, section)
        for key, value in section.items():
            self._value(f"{path}.{key}", value, rules.get(key))

    def _value(self, path: str, value: Any, rule: Rule | None) -> None:
        if value == _MISSING:
            self._say(f"{path}: needs a value; write {path}=VALUE")
        elif rule is not None and not rule.accepts(value):
            near = nearest(str(value), rule.choices)
            whole = isinstance(value, float) and value.is_integer() and rule.accepts(int(value))
            hint = f"; did you mean {near}?" if near else f"; write {int(value)}" if whole else ""
            self._say(f"{path}={show(value)}: must be {rule.allowed()}{hint}")

    def _get(self, path: str, default: Any = None) -> Any:
        """A setting if it is there and right by itself, so that it can be compared with others."""
        section, _, key = path.rpartition(".")
        values = self.config.get(section) if section else self.config
        value = values.get(key, default) if isinstance(values, Mapping) else default
        rule = rule_for(path)
        return value if rule is None or rule.accepts(value) else None

    def _across(self) -> None:
        chosen, settings = self._get("evaluators", []) or [], self._get("evaluator")
        for name in chosen if isinstance(settings, Mapping) else []:
            if name not in settings:
                self._say(f"evaluators={show(chosen)}: {name} {names_text('evaluator', settings, name)}")
        if len(set(chosen)) != len(chosen):
            self._say(f"evaluators={show(chosen)}: each may occur once")
        if self._get("trainer.precision") == "fp16" and self._get("trainer.device") == "cpu":
            self._say("trainer.precision=fp16: not with trainer.device=cpu; use bf16 or fp32")
        if self._get("trainer.precision") == "tf32" and self._get("trainer.device") == "cpu":
            self._say("trainer.precision=tf32: not with trainer.device=cpu; use fp32")

    def _recipe(self) -> None:
        batch, epochs = self._get("recipe.batch_size"), self._get("recipe.epochs")
        nproc, accumulate = self._get("trainer.nproc", 1), self._get("recipe.accumulate", 1)
        if batch and nproc and accumulate:
            self._micro_batch(batch, nproc, accumulate)
            self._micro_batch_size(batch, nproc, accumulate)
        if self._get("trainer.cuda_graph"):
            self._cuda_graph(nproc, accumulate)
        size = self._get("dataset.train_size")
        if batch and size and size < batch:
            self._say(f"recipe.batch_size={batch}: must be at most dataset.train_size={size}, or no batch is complete")
        warmup = self._get("recipe.warmup_epochs", 0)
        if epochs and warmup and warmup > epochs:
            self._say(f"recipe.warmup_epochs={warmup}: must be at most recipe.epochs={epochs}")
        if self._get("recipe.schedule") == "multistep" and self._get("recipe.milestones", []) == []:
            self._say("recipe.milestones=[]: recipe.schedule=multistep needs some, for example [0.5,0.75]")

    def _cuda_graph(self, nproc: int | None, accumulate: int | None) -> None:
        """One process on one GPU computes a step in one go; the methods are looked at when they are built."""
        size, is_not = self._get("trainer.micro_batch_size"), "trainer.cuda_graph=true: not with"
        if self._get("trainer.device") == "cpu":
            self._say(f"{is_not} trainer.device=cpu; write trainer.cuda_graph=false")
        if nproc and nproc > 1:
            self._say(f"{is_not} trainer.nproc={nproc}; write trainer.nproc=1 or trainer.cuda_graph=false")
        if accumulate and accumulate > 1:
            self._say(f"{is_not} recipe.accumulate={accumulate}; write recipe.accumulate=1 or trainer.cuda_graph=false")
        if size is not None:
            self._say(
                f"{is_not} trainer.micro_batch_size={size}; write trainer.micro_batch_size=null "
                "or trainer.cuda_graph=false"
            )

    def _micro_batch(self, batch: int, nproc: int, accumulate: int) -> None:
        """What a process computes at a time is a whole number of images, of which batch statistics need 2."""
        count = nproc * accumulate
        parts, near = f"trainer.nproc={nproc} x recipe.accumulate={accumulate}", max(batch - batch % count, 2 * count)
        if batch % count:
            self._say(f"recipe.batch_size={batch}: must be divisible by {parts}; for example {near}")
        elif batch == count:
            why = "as batch normalisation needs 2 images at a time"
            self._say(f"recipe.batch_size={batch}: must be at least 2 x {parts}, {why}; for example {near}")

    def _micro_batch_size(self, batch: int, nproc: int, accumulate: int) -> None:
        """The other way to say what a process computes at a time."""
        size = self._get("trainer.micro_batch_size")
        if size is None:
            return
        if accumulate > 1:
            self._say(
                f"recipe.accumulate={accumulate}: not with trainer.micro_batch_size={size}, which splits a step "
                "as well; write recipe.accumulate=1"
            )
        elif size != "auto" and batch % nproc == 0 and size not in (sizes := micro_batch_sizes(batch // nproc)):
            near = max((s for s in sizes if s <= size), default=batch // nproc)
            self._say(
                f"trainer.micro_batch_size={size}: must divide the {batch // nproc} images of a process "
                f"(recipe.batch_size={batch} / trainer.nproc={nproc}); for example {near}"
            )


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def normalise(config: Any, path: str = "", rule: Rule | None = None) -> Any:
    """The same settings with 1 written as 1.0 where a number may have fractions: one run, one folder."""
    if isinstance(config, Mapping):
        rules = setting_rules(path, config)
        return {k: normalise(v, f"{path}.{k}" if path else str(k), rules.get(k)) for k, v in config.items()}
    real = rule is not None and is_real(rule.hint)
    if isinstance(config, list):
        return [float(v) if real and type(v) is int else normalise(v, f"{path}[{i}]") for i, v in enumerate(config)]
    return float(config) if real and type(config) is int else config


def build(config: Mapping[str, Any], schema: type) -> Any:
    """A valid configuration as an instance of its schema."""
    hints = typing.get_type_hints(schema)
    values = {k: hints[k](**v) if dataclasses.is_dataclass(hints[k]) else v for k, v in config.items()}
    return schema(**values)
