"""Flower's flat run config -> one frozen, checked `RunConfig`. Knows no files but the one that holds the defaults.

The defaults stand in `[tool.flwr.app.config]` of pyproject.toml and nowhere else.
"""

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from cdcda_flower.data.personas.rewording import REWORDED_TASKS
from cdcda_flower.errors import ConfigError
from cdcda_flower.key_rules import check_run_name, column_names, unknown_key, url_problem
from cdcda_flower.methods import KNOWN_METHODS, Method, is_method, method_named, method_problem
from cdcda_flower.plugins.seams import (
    CLOUD_ENGINE,
    CONSISTENCY_SCORER,
    FILTER,
    METRIC,
    RETRIEVER,
    SEAMS,
    SHARE_POLICY,
    Seam,
    check_name,
    plugins_in,
)
from cdcda_flower.redaction import KINDS
from cdcda_flower.share_rules import excluding, inline_ratios, lets_none_go, redacted_kinds
from cdcda_flower.tasks import TASKS, Task, inline, task_named
from cdcda_flower.tasks.metrics import LAMP_METRICS, with_metrics

Scalar = bool | int | float | str
# The paper's three filters.
FILTERS = FILTER.built_in
# The keys that may name a test double, by the value "echo".
DOUBLE_KEYS = ("cloud-engine", "consistency-scorer", "device-executor")

Ratio = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0, le=1)]


# What a method with a teacher's distributions needs, and why.
_OF_A_TEACHER: Mapping[str, tuple[tuple[str, ...], str]] = MappingProxyType(
    {
        "cloud-engine": (
            ("transformers",),
            "the other engines give texts, not the distributions behind them (a .gguf file as cloud-model is fine)",
        ),
        "device-executor": (("auto", "local", "fleet"), "a double learns nothing from distributions"),
    }
)
# What bounds what is shared, and the share policies that keep to it.
_BOUNDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "share-ratios": ("per-user",),
        "share-items": ("budget", "diverse"),
        "share-bytes": ("budget",),
        "share-exclude": ("exclude",),
    }
)
_FIELDS_OF_THE_ENGINE = frozenset({"model", "messages", "temperature", "max_tokens", "seed", "n", "stream"})
_FIELDS_OF_A_GUIDED_ANSWER = frozenset(
    {"continue_final_message", "add_generation_prompt", "stop", "structured_outputs", "guided_choice", "grammar"}
    | {"response_format"}
)


def filters_in(text: str) -> tuple[str, ...]:
    """Returns the filters that a value of the key `filters` names: the paper's in its order, then plug-ins as written."""
    named = FILTER.names(text)
    return (*(name for name in FILTERS if name in named), *(name for name in named if name not in FILTERS))


def doubles_in(values: Mapping[str, Scalar]) -> tuple[str, ...]:
    """Returns the keys of a flat config that name a test double; also of one that another version of the app wrote."""
    return tuple(key for key in DOUBLE_KEYS if values.get(key) == "echo")


def is_control(values: Mapping[str, Scalar]) -> bool:
    """Says whether a flat config's cloud is the positive control, which says nothing about real clouds."""
    return values.get("cloud-engine") == "corpus-control"


def _kebab(name: str) -> str:
    return name.replace("_", "-")


def _choices(seam: Seam) -> str:
    return f"{', '.join(seam.built_in)}, or a plug-in (docs/reference/plugins.md)"


class RunConfig(BaseModel):
    """Every choice of one run. Keys are flat and kebab-case; `from_flwr` reports all problems at once."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, alias_generator=_kebab)

    task: str = Field(
        description="a LaMP task ("
        + ", ".join(TASKS)
        + "), or the .toml file of your own (docs/how-to/your-own-task.md)"
    )
    data: str = Field(
        description='"embedded" (synthetic personas), a folder with LaMP_N/{train,dev}, a folder that `cdcda data prepare` printed, or a table: a .jsonl, .csv or .parquet file, a folder that `datasets` saved, or "hf:owner/name" (docs/how-to/your-own-data.md)'
    )
    columns: str = Field(
        description='columns of a table, such as "user=author,input=abstract,output=title,time=year"; one that is not named has the name of what it holds'
    )
    test_per_user: Positive = Field(description="examples of a table that are held out per user: the most recent ones")
    profile_form: str = Field(description="how a profile item becomes a training pair (docs/how-to/your-own-data.md)")
    num_users: Positive = Field(description="target users = simulated devices: those with the longest history")
    max_history: Count = Field(description="most recent history items kept per user; 0 = all")
    query_split: Literal["dev", "train"] = Field(
        description="split whose users answer its queries: dev for results; train to tune a recipe, so that dev stays unseen"
    )
    max_queries: Count = Field(description="queries that a user's methods answer, the first of the file; 0 = all")
    max_words: Count = Field(description="words kept of a history item's and a query's free text; 0 = all")
    max_base_rows: Count = Field(
        description="rows of non-target users that M_base is trained on, drawn by seed; 0 = all"
    )
    seed: Count = Field(description="root of every derived seed")
    methods: str = Field(description="comma-separated, paired in one federation: " + KNOWN_METHODS)
    swap_test: bool = Field(description="each trained adapter also answers another user's queries")
    share_policy: str = Field(
        description=f"{_choices(SHARE_POLICY)}; or several, such as redact+ratio: each works on what the one before it let through"
    )
    share_ratio: Ratio = Field(
        description="share of the history that the policy `ratio`, `recent` or `diverse` lets go"
    )
    share_ratios: str = Field(
        description="each person's share with `per-user`: a .csv file with the columns user,ratio, or LOW..HIGH to draw from"
    )
    share_items: Count = Field(description="most items that `budget` or `diverse` lets go; 0 = any number")
    share_bytes: Count = Field(
        description="most bytes (UTF-8, x and y of all items together) that `budget` lets go; 0 = any number"
    )
    share_exclude: str = Field(
        description="regular expression; no item whose x or y it matches passes `exclude`; case does not count"
    )
    share_redact: str = Field(description="what `redact` replaces, comma-separated: " + ", ".join(KINDS))
    egress_bytes: Count = Field(description="most bytes of replies that may leave one device in a run; 0 = no bound")
    retriever: str = Field(description=f"what ranks a history for a question: {_choices(RETRIEVER)}")
    rag_items: Positive = Field(
        description="history items before a question, and with NAME+rag before a training input"
    )
    rag_words: Count = Field(
        description="words of the history items before one question in all; fewer where max-tokens ends before"
    )
    k: Annotated[int, Field(ge=1, le=100)] = Field(description="synthetic pairs per shared example")
    temperature: Annotated[float, Field(gt=0, le=5)] = Field(description="of the cloud's multinomial sampling")
    cloud_engine: str = Field(
        description=f"{_choices(CLOUD_ENGINE)}; openai is a server (docs/how-to/cloud-server.md), corpus-control a positive control for embedded data, echo a test double"
    )
    prompt_form: Literal["guided", "paper"] = Field(
        description="guided begins the cloud's answers and binds them to labels, for small models; paper leaves all to the model"
    )
    cloud_model: str = Field(
        description='"embedded", a Hugging Face id, or a local folder or GGUF file; with `openai` the server\'s name for it'
    )
    cloud_max_tokens: Positive = Field(
        description="tokens that the cloud may write for one x or one y; a text that does not end within them is no pair"
    )
    cloud_batch_tokens: Positive = Field(
        description="tokens (prompt + new, all samples) of the generation batches in flight: a bound on memory"
    )
    cloud_url: str = Field(description="of `openai`'s server; empty = $OPENAI_BASE_URL, else OpenAI's own")
    cloud_key_variable: str = Field(
        description="environment variable with that server's key; empty = $OPENAI_API_KEY, for OpenAI or $OPENAI_BASE_URL only"
    )
    cloud_concurrency: Annotated[int, Field(ge=1, le=1000)] = Field(description="calls in flight at the server")
    cloud_timeout_s: Positive = Field(description="seconds that the server has for one answer")
    cloud_retries: Count = Field(description="times that a call is made again after a failure that may pass")
    cloud_body: str = Field(
        description="JSON object of further fields of `openai`'s requests; null leaves out one that is sent by itself"
    )
    consistency_scorer: str = Field(
        description=f"filter 1's score: {_choices(CONSISTENCY_SCORER)}; echo is a test double"
    )
    consistency_model: str = Field(
        description='"embedded" (MiniLM), or the id or path of a sentence encoder or NLI model'
    )
    tape: str = Field(
        description="absolute file of recorded answers and scores; empty = tape.sqlite in the cache folder"
    )
    tape_mode: Literal["record", "replay", "off"] = Field(
        description="record: what the tape lacks is asked and recorded; replay: nothing is asked; off: all is (docs/how-to/reuse-cloud-answers.md)"
    )
    budget_calls: Count = Field(description="requests that one run may ask of the cloud; 0 = any number")
    budget_tokens: Count = Field(
        description="tokens that one run may have the cloud write (and read, where a server counts them); 0 = any number"
    )
    filters: str = Field(
        description=f'which filters select, comma-separated: {_choices(FILTER)}; "none" or "" keeps all pairs; the three always judge'
    )
    epsilon_scf: Ratio = Field(description="least consistency score, both directions (equation 2)")
    epsilon_tdf: Ratio = Field(description="greatest ROUGE-L between x and x_syn (equation 3)")
    epsilon_min_len: Annotated[float, Field(ge=0)] = Field(description="least length ratio of x_syn to x (equation 4)")
    epsilon_max_len: Annotated[float, Field(gt=0)] = Field(
        description="greatest length ratio of x_syn to x (equation 4)"
    )
    metrics: str = Field(description="metrics beside the task's, comma-separated: plug-ins (docs/reference/plugins.md)")
    plugin_args: str = Field(
        description='JSON object of plug-ins\' names and their constructors\' arguments, such as {"mine:Mine": {"count": 3}}'
    )
    plugin_dir: str = Field(description="folder searched first for module:Class; `cdcda run` sets the TOML file's")
    eda_alpha_sr: Ratio = Field(description="share of words that EDA's synonym replacement changes; 0 = leave it out")
    eda_alpha_ri: Ratio = Field(description="share of words that EDA's random insertion adds; 0 = leave it out")
    eda_alpha_rs: Ratio = Field(description="swaps of EDA's random swap per word; 0 = leave it out")
    eda_alpha_rd: Ratio = Field(description="probability that EDA's random deletion drops a word; 0 = leave it out")
    device: Literal["auto", "cpu", "cuda"] = Field(description="where models run; auto takes a GPU if there is one")
    device_executor: Literal["auto", "fleet", "local", "echo"] = Field(
        description="fleet: one process for all users; local: each device's own; auto: the faster of both, measured once on this machine; echo is a test double; reports refuse it"
    )
    devices: Literal["simulated", "real"] = Field(
        description="simulated: all on this machine, each a folder of the run's; real: each a SuperNode with folders of its own, to which M_base is sent (docs/how-to/real-devices.md)"
    )
    fleet_slots: Positive = Field(description="adapters that the fleet trains, or answers with, at once")
    device_model: str = Field(description='"embedded", a Hugging Face id, or a local folder or GGUF file')
    quantization: Literal["nf4", "none"] = Field(
        description="of the device's frozen base weights; the compute dtype follows the hardware"
    )
    max_tokens: Annotated[int, Field(ge=16)] = Field(
        description="tokens of one example; the input is cut, never the answer"
    )
    lora_rank: Positive = Field(description="r of every linear layer's adapter")
    lora_alpha: Positive = Field(description="scaling numerator; the update is alpha / r * B A x")
    learning_rate: Rate = Field(description="of a user's adapter (AdamW, linear decay)")
    epochs: Positive = Field(description="passes over a user's training set")
    steps: Count = Field(
        description="optimiser steps of a user's adapter, whatever pairs its method adds; 0 = those of `epochs` passes"
    )
    batch_size: Positive = Field(description="examples per step of a user's adapter")
    rkd_weight: Rate = Field(description="share of the reverse KL in the loss of a pair that the teacher has seen")
    rkd_top_k: Count = Field(description="tokens per position whose probability the teacher sends; 0 = all")
    base_learning_rate: Rate = Field(description="of M_base's adapter, which is merged after training")
    base_epochs: Count = Field(description="passes over the non-target users; 0 = M_base is the device model itself")
    base_batch_size: Positive = Field(description="examples per step of M_base")
    bertscore_model: str = Field(description='"embedded" (MiniLM), an id or path, or "none"')
    bertscore_layer: Positive = Field(description="hidden layer of the BERTScore encoder")
    client_memory_gb: Annotated[float, Field(gt=0)] = Field(
        description="memory that one client with a model of its own may need; where it is short, fewer work side by side"
    )
    client_gpu_share: Annotated[float, Field(gt=0, le=1)] = Field(
        description="GPU share of one client that trains in its own process, on a machine with a GPU"
    )
    start_timeout_s: Positive = Field(description="seconds that all devices have to connect")
    reply_timeout_s: Positive = Field(description="seconds that a phase may take in all")
    on_device_failure: Literal["fail", "record"] = Field(
        description="what a run with failed devices is, once all others have finished: failed, or finished with their names recorded"
    )
    runs_dir: str = Field(description="absolute folder of run folders; empty = $CDCDA_RUNS_DIR or ~/cdcda-runs")
    run_name: str = Field(description="folder name of this run; empty = task, time and digest")
    cache_dir: str = Field(description="absolute cache folder; empty = $CDCDA_CACHE_DIR or ~/.cache/cdcda-flower")

    @property
    def chosen_task(self) -> Task:
        """The task itself, LaMP's or one's own, with all metrics of the run."""
        return with_metrics(task_named(self.task), self.metric_names)

    @property
    def method_names(self) -> tuple[str, ...]:
        """The methods in the order in which they were written."""
        return tuple(name.strip() for name in self.methods.split(","))

    @property
    def chosen_methods(self) -> tuple[Method, ...]:
        """The methods themselves, in the same order."""
        return tuple(map(method_named, self.method_names))

    @property
    def executor(self) -> Literal["fleet", "local", "echo"]:
        """What trains and answers. `cdcda run` measures for "auto" and says "fleet" or "local"; plain `flwr run` takes "local"."""
        return "local" if self.device_executor == "auto" else self.device_executor

    @property
    def share_policies(self) -> tuple[str, ...]:
        """The names in `share-policy`, in the order in which they work."""
        return SHARE_POLICY.names(self.share_policy)

    @property
    def redacts(self) -> tuple[str, ...]:
        """What is redacted in all that is shared; nothing where `redact` is none of the share policies."""
        return redacted_kinds(self.share_redact) if "redact" in self.share_policies else ()

    @property
    def filter_names(self) -> tuple[str, ...]:
        """The filters that select, the paper's first and in its order; none keeps every pair."""
        return filters_in(self.filters)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The metrics beside the task's own."""
        return METRIC.names(self.metrics)

    @property
    def doubles(self) -> tuple[str, ...]:
        """The keys that name a test double; a run with one is refused by reports."""
        return doubles_in(self.to_flwr())

    @property
    def asks_a_server(self) -> bool:
        """Whether the run may ask an OpenAI-compatible server; a replay asks nobody."""
        return self.cloud_engine == "openai" and self.tape_mode != "replay"

    # Rules are field validators, also where they read another field: a model validator would not run, and its
    # problems would stay unsaid, as long as any single field is wrong.
    @field_validator("task")
    @classmethod
    def _known_task(cls, value: str) -> str:
        return inline(task_named(value))

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, value: str) -> str:
        column_names(value)
        return value

    @field_validator("profile_form")
    @classmethod
    def _known_form(cls, value: str, info: ValidationInfo) -> str:
        if "task" in info.data:
            task_named(info.data["task"]).form(value)
        return value

    @field_validator("methods")
    @classmethod
    def _known_methods(cls, value: str) -> str:
        names = [name.strip() for name in value.split(",")]
        problems = list(filter(None, map(method_problem, names)))
        if problems:
            raise ConfigError(f"methods is {value!r}; {'; '.join(problems)}; known methods: {KNOWN_METHODS}")
        if len(set(names)) != len(names):
            raise ConfigError(f"methods is {value!r}; name each method once")
        return value

    @field_validator("cloud_engine", "device_executor")
    @classmethod
    def _what_a_teacher_needs(cls, value: str, info: ValidationInfo) -> str:
        taught = [method.name for method in _methods(info) if method.supply == "teacher"]
        key = _kebab(str(info.field_name))
        allowed, why = _OF_A_TEACHER[key]
        if taught and value not in allowed:
            wanted = " or ".join(f'{key} = "{one}"' for one in allowed)
            raise ConfigError(f"{key} is {value!r}; {taught[0]} needs {wanted}: {why}")
        return value

    @field_validator("devices")
    @classmethod
    def _what_real_devices_lack(cls, value: str, info: ValidationInfo) -> str:
        if value == "real" and info.data.get("swap_test"):
            raise ConfigError(
                'devices is "real" and swap-test is true; a real device holds no other user\'s adapter: set swap-test = false'
            )
        if value == "real" and info.data.get("device_executor") == "fleet":
            raise ConfigError(
                'devices is "real" and device-executor is "fleet", which trains for all devices in one process: set '
                'device-executor = "local"'
            )
        return value

    @field_validator("filters")
    @classmethod
    def _known_filters(cls, value: str) -> str:
        names = [name.strip() for name in value.split(",")]
        if names not in (["none"], [""]) and (len(set(names)) != len(names) or {"none", ""} & set(names)):
            raise ConfigError(f'filters is {value!r}; name each filter once, or write "none"')
        for name in FILTER.names(value):
            check_name(FILTER, name)
        return value

    @field_validator("metrics")
    @classmethod
    def _known_metrics(cls, value: str) -> str:
        names = METRIC.names(value)
        if len(set(names)) != len(names):
            raise ConfigError(f"metrics is {value!r}; name each metric once")
        if own := [name for name in names if name in LAMP_METRICS]:
            raise ConfigError(f"metrics names {own[0]!r}; LaMP's metrics come with the task: leave it out")
        for name in names:
            check_name(METRIC, name)
        return value

    @field_validator("share_policy")
    @classmethod
    def _known_policies(cls, value: str, info: ValidationInfo) -> str:
        names = SHARE_POLICY.names(value) or ("",)
        for name in names:
            check_name(SHARE_POLICY, name)
        if len(set(names)) != len(names):
            raise ConfigError(f"share-policy is {value!r}; name each policy once")
        if "redact" in names and "budget" in names[: names.index("redact")]:
            raise ConfigError(f"share-policy is {value!r}; redact can make a text longer: write it before budget")
        taught = [method.name for method in _methods(info) if method.supply == "teacher"]
        task, form = info.data.get("task"), info.data.get("profile_form")  # none where a rule of theirs is broken
        if "redact" in names and taught and task and form and not task_named(task).form(form).labelled:
            raise ConfigError(
                f"share-policy is {value!r}; {taught[0]}'s teacher speaks of y as it is shared, which redact changes in "
                "this task, and the device trains on y as it stands: leave one of the two out"
            )
        return value

    @field_validator("share_ratio")
    @classmethod
    def _enough_is_shared(cls, value: float, info: ValidationInfo) -> float:
        policy = str(info.data.get("share_policy", ""))
        if not lets_none_go(SHARE_POLICY.names(policy), value):
            return value
        for method in _methods(info):
            said = f"share-policy is {policy!r} and share-ratio {value:g}; {method.name}"
            if method.start == "global":
                raise ConfigError(
                    f"{said} begins with the global adapter, which is trained on what all users share, and the policy "
                    "lets nothing go: share some, or leave the method out"
                )
            if method.answers == "cloud" and method.retrieval:
                raise ConfigError(
                    f"{said} sends history items that the policy lets go, and it lets none go: share some, or take "
                    "the method without retrieval"
                )
        return value

    @field_validator("share_ratios", "share_items", "share_bytes", "share_exclude")
    @classmethod
    def _bound_of_a_policy(cls, value: str | int, info: ValidationInfo) -> str | int:
        key, policy = _kebab(str(info.field_name)), info.data.get("share_policy")
        if policy is None:  # its own rule is broken
            return value
        named, keeping = SHARE_POLICY.names(policy), _BOUNDS[key]
        kept_by = [name for name in keeping if name in named]
        # Whoever sets a bound believes in it. Where nothing is shared it holds.
        if value and not kept_by and "none" not in named:
            chain = f"{keeping[0]}+{policy}" if keeping[0] == "exclude" else f"{policy}+{keeping[0]}"
            raise ConfigError(
                f"{key} is {value!r}; share-policy {policy!r} does not use it: write {chain!r}, or leave {key} out"
            )
        other = "share-items or " if key == "share-bytes" else ""
        if kept_by and not value and key != "share-items" and not (other and info.data.get("share_items", 1)):
            raise ConfigError(
                f"{key} is {value!r}; share-policy {policy!r} needs it: give {other}{key}, or leave {kept_by[0]} out"
            )
        return value

    @field_validator("share_ratios")
    @classmethod
    def _own_ratios(cls, value: str) -> str:
        return inline_ratios(value) if value else value

    @field_validator("share_exclude")
    @classmethod
    def _a_pattern(cls, value: str) -> str:
        if value:
            excluding(value)
        return value

    @field_validator("share_redact")
    @classmethod
    def _known_kinds(cls, value: str) -> str:
        redacted_kinds(value)
        return value

    @field_validator("cloud_engine")
    @classmethod
    def _what_the_control_knows(cls, value: str, info: ValidationInfo) -> str:
        data, task = info.data.get("data"), info.data.get("task")
        if value != "corpus-control" or data is None or task is None:
            return value
        said = f"cloud-engine is {value!r}, which knows how the embedded corpus is written"
        if data != "embedded":
            raise ConfigError(f'{said}; data is {data!r}: set data = "embedded", or take another engine')
        if task not in REWORDED_TASKS:
            raise ConfigError(f"{said} for {', '.join(REWORDED_TASKS)}; task is {task!r}: take one of them")
        if asking := [method.name for method in _methods(info) if method.answers == "cloud"]:
            raise ConfigError(f"{said} and answers no questions; leave the method {asking[0]} out")
        return value

    @field_validator("cloud_model")
    @classmethod
    def _model_of_the_engine(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("cloud_engine") == "llama-cpp" and value != "embedded" and not value.endswith(".gguf"):
            raise ConfigError(
                f'cloud-model is {value!r}; with cloud-engine = "llama-cpp" it must be a .gguf file, or "embedded"'
            )
        if info.data.get("cloud_engine") == "openai" and value in {"", "embedded"}:
            raise ConfigError(
                f'cloud-model is {value!r}; with cloud-engine = "openai" it must be the name that the server gives '
                "its model; `GET <cloud-url>/models` lists them"
            )
        return value

    @field_validator("cloud_url")
    @classmethod
    def _plain_url(cls, value: str) -> str:
        if problem := url_problem("cloud-url", value):
            raise ConfigError(problem)
        return value

    @field_validator("cloud_key_variable")
    @classmethod
    def _a_name(cls, value: str) -> str:
        if value and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", value):
            # Not repeated: it may be the key itself.
            raise ConfigError('cloud-key-variable must be the name of an environment variable, such as "MY_SERVER_KEY"')
        return value

    @field_validator("max_tokens")
    @classmethod
    def _room_for_a_query(cls, value: int, info: ValidationInfo) -> int:
        answer = task_named(info.data["task"]).max_answer_tokens if "task" in info.data else 0
        if value < 2 * answer:
            raise ConfigError(
                f"max-tokens is {value}; it must be at least {2 * answer}: an answer of this task may take {answer}"
            )
        return value

    @field_validator("cloud_body")
    @classmethod
    def _fields_of_a_request(cls, value: str, info: ValidationInfo) -> str:
        guided = info.data.get("prompt_form") == "guided"
        own = _FIELDS_OF_THE_ENGINE | (_FIELDS_OF_A_GUIDED_ANSWER if guided else set())
        if taken := sorted(own & _json_object("cloud-body", value, '{"top_k": null}').keys()):
            raise ConfigError(f"cloud-body names {', '.join(taken)}; the engine sets these itself: leave them out")
        return value

    @field_validator("cloud_engine", "consistency_scorer", "retriever")
    @classmethod
    def _known_name(cls, value: str, info: ValidationInfo) -> str:
        key = _kebab(str(info.field_name))
        [seam] = (seam for seam in SEAMS if seam.key == key)
        check_name(seam, value)
        return value

    @field_validator("plugin_args")
    @classmethod
    def _arguments_of_plugins(cls, value: str, info: ValidationInfo) -> str:
        example = '{"my_policies:Mine": {"count": 3}}'
        given = _json_object("plugin-args", value, example)
        used = {plugin.name for plugin in plugins_in({_kebab(name): value for name, value in info.data.items()})}
        if odd := [name for name, arguments in given.items() if not isinstance(arguments, dict)]:
            raise ConfigError(
                f"plugin-args gives {odd[0]!r} no JSON object; write arguments by name, such as {example}"
            )
        if strangers := [name for name in given if name not in used]:
            has = f"its plug-ins are {', '.join(sorted(used))}" if used else "it names no plug-in"
            raise ConfigError(
                f"plugin-args names {', '.join(map(repr, strangers))}, no plug-in of this run; {has}; built-in choices take none"
            )
        return value

    @field_validator("epsilon_max_len")
    @classmethod
    def _above_least_length(cls, value: float, info: ValidationInfo) -> float:
        least = info.data.get("epsilon_min_len", 0)
        if value <= least:
            raise ConfigError(f"epsilon-max-len is {value}; it must be above epsilon-min-len ({least})")
        return value

    @field_validator("eda_alpha_rd")
    @classmethod
    def _some_operation(cls, value: float, info: ValidationInfo) -> float:
        if not any((value, *(info.data.get(f"eda_alpha_{name}", 1) for name in ("sr", "ri", "rs")))):
            raise ConfigError(f"eda-alpha-rd is {value}, as -sr, -ri and -rs are; at least one must be above 0")
        return value

    @field_validator("plugin_dir", "runs_dir", "cache_dir", "tape")
    @classmethod
    def _absolute(cls, value: str, info: ValidationInfo) -> str:
        if value and not Path(value).is_absolute():
            key = _kebab(str(info.field_name))
            raise ConfigError(f"{key} is {value!r}; it must be absolute: both sides of a run start in other folders")
        return value

    @field_validator("run_name")
    @classmethod
    def _folder_name(cls, value: str) -> str:
        if value:
            check_run_name(value)
        return value

    @classmethod
    def from_flwr(cls, values: Mapping[str, Scalar]) -> Self:
        """Returns the checked config of a full key set; raises one ConfigError that lists every problem."""
        # Flower delivers `share-ratio = 1` as an int; a whole number is a fine float.
        floats = {_kebab(name) for name, info in cls.model_fields.items() if info.annotation is float}
        given = {k: float(v) if k in floats and type(v) is int else v for k, v in values.items()}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            problems = [
                _problem(str(e["loc"][0]) if e["loc"] else "", e["msg"], e.get("input"), cls.keys())
                for e in error.errors()
            ]
            raise ConfigError("\n".join(problems)) from None

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        """All keys as they are written in a TOML file."""
        return tuple(_kebab(name) for name in cls.model_fields)

    def to_flwr(self) -> dict[str, Scalar]:
        """Returns the flat key set that `from_flwr` reads."""
        return self.model_dump(by_alias=True)


def _json_object(key: str, value: str, example: str) -> dict[str, object]:
    try:
        parsed = json.loads(value or "{}")
    except json.JSONDecodeError as error:
        raise ConfigError(f"{key} is no JSON: {error}; write an object such as '{example}'") from None
    if not isinstance(parsed, dict):
        raise ConfigError(f"{key} is {value!r}; write a JSON object such as '{example}'")
    return parsed


def _methods(info: ValidationInfo) -> list[Method]:
    """Returns the known methods of a config in the making; unknown ones are said by their own rule."""
    names = [name.strip() for name in info.data.get("methods", "").split(",")]
    return [method_named(name) for name in names if is_method(name)]


def _problem(key: str, message: str, value: object, known: tuple[str, ...]) -> str:
    if message.startswith("Value error, "):
        return message.removeprefix("Value error, ")
    if message == "Extra inputs are not permitted":
        return unknown_key(key, known)
    if message == "Field required":
        return f"{key} is missing"
    return f"{key} is {value!r}; {message[0].lower()}{message[1:]}"


def read_defaults(pyproject: Path) -> dict[str, Scalar]:
    """Returns `[tool.flwr.app.config]` of the app's pyproject.toml."""
    return dict(tomllib.loads(pyproject.read_text(encoding="utf-8"))["tool"]["flwr"]["app"]["config"])
