"""The config takes Flower's flat values, and says everything that is wrong with them in one message."""

from typing import Any

import pytest

from cdcda_flower.config import RunConfig, Scalar, read_defaults
from cdcda_flower.errors import ConfigError
from repository import ROOT

DEFAULTS = read_defaults(ROOT / "pyproject.toml")


def _config(**changes: Scalar) -> RunConfig:
    return RunConfig.from_flwr(DEFAULTS | {key.replace("_", "-"): value for key, value in changes.items()})


def _lines(**changes: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        _config(**changes)
    return str(caught.value).splitlines()


def test_to_flwr_and_back() -> None:
    config = _config(share_ratio=0.25, methods="cdcda,device")
    assert RunConfig.from_flwr(config.to_flwr()) == config
    assert tuple(config.to_flwr()) == RunConfig.keys()
    assert config.method_names == ("cdcda", "device")


def test_a_whole_number_is_a_fine_float() -> None:
    config = _config(share_ratio=1, epsilon_max_len=3)
    assert (config.share_ratio, config.epsilon_max_len) == (1.0, 3.0)
    assert isinstance(config.share_ratio, float)


def test_all_problems_stand_in_one_message() -> None:
    lines = _lines(
        task="lamp-9",
        num_users=0,
        methods="device,magic",
        share_ratio=1.5,
        k="5",
        plugin_args="{",
        runs_dir="here",
        cloud_engine="vllm",
        shared_ratio=0.5,
        epsilon_max_len=0.1,
        learning_rate=0.0,
    )
    for key in (
        "task is 'lamp-9'",
        "num-users is 0",
        "'magic'",
        "share-ratio is 1.5",
        "k is '5'",
        "plugin-args",
        "runs-dir is 'here'",
        "cloud-engine is 'vllm'",
        "unknown key 'shared-ratio'; did you mean 'share-ratio'?",
        "epsilon-max-len is 0.1",
        "learning-rate is 0.0",
    ):
        assert sum(key in line for line in lines) == 1, key
    assert len(lines) == 11


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task": "lamp-6"}, "known tasks: lamp-1, lamp-2, lamp-3, lamp-4, lamp-5, lamp-7"),
        ({"profile_form": "tweet"}, "forms of lamp-3: default, pair"),
        ({"methods": "magic"}, "known methods: cloud, cloud+rag, device,"),
        ({"methods": "device,magic"}, "methods is 'device,magic'; 'magic' is no method; known methods: cloud,"),
        (
            {"methods": "magic,global>device"},
            "'magic' is no method; 'global>device' is no method: M_base with the global",
        ),
        ({"methods": "cdcda+rag,rkd-ft+rag"}, "'rkd-ft+rag' is no method: the teacher judges"),
        ({"methods": "magic"}, "composes as [global>]NAME[+rag], such as global>cdcda+rag"),
        ({"methods": "cdcda+rag, cdcda+rag"}, "name each method once"),
        ({"methods": "global>cdcda", "share_policy": "none"}, "global>cdcda begins with the global adapter, which is"),
        ({"methods": "global-ft", "share_ratio": 0}, "share-ratio 0; global-ft begins with the global adapter"),
        ({"methods": "global>rkd-ft", "device_executor": "echo"}, "device-executor is 'echo'; global>rkd-ft needs"),
        ({"methods": "device,device"}, "name each method once"),
        (
            {"share_policy": "newest"},
            "share-policy names 'newest'; known: ratio, recent, per-user, diverse, budget, exclude, redact, all, none; or give",
        ),
        ({"share_policy": "a b:C"}, "share-policy names 'a b:C'; known: ratio"),
        ({"share_policy": "redact+newest"}, "share-policy names 'newest'; known: ratio"),
        ({"share_policy": "redact+"}, "share-policy names ''; known: ratio"),
        ({"share_policy": ""}, "share-policy names ''; known: ratio"),
        ({"share_policy": "ratio+redact+ratio"}, "name each policy once"),
        ({"share_policy": "budget+redact", "share_items": 1}, "redact can make a text longer: write it before budget"),
        ({"share_policy": "redact+ratio", "methods": "rkd-ft", "task": "lamp-7"}, "rkd-ft's teacher speaks of y as it"),
        (
            {"share_policy": "diverse", "share_ratio": 0, "methods": "global-ft"},
            "global-ft begins with the global adapter",
        ),
        (
            {"share_policy": "redact+none", "methods": "cloud+rag"},
            "cloud+rag sends history items that the policy lets go",
        ),
        (
            {"share_policy": "budget"},
            "share-bytes is 0; share-policy 'budget' needs it: give share-items or share-bytes",
        ),
        (
            {"share_policy": "exclude+ratio"},
            "share-exclude is ''; share-policy 'exclude+ratio' needs it: give share-exclude, or leave exclude out",
        ),
        ({"share_policy": "per-user"}, "share-ratios is ''; share-policy 'per-user' needs it"),
        (
            {"share_items": 3},
            "share-items is 3; share-policy 'ratio' does not use it: write 'ratio+budget', or leave share-items out",
        ),
        (
            {"share_bytes": 3, "share_policy": "diverse"},
            "share-bytes is 3; share-policy 'diverse' does not use it: write 'diverse+budget'",
        ),
        (
            {"share_exclude": "x"},
            "share-exclude is 'x'; share-policy 'ratio' does not use it: write 'exclude+ratio', or",
        ),
        ({"share_ratios": "0..1"}, "share-ratios is '0..1'; share-policy 'ratio' does not use it"),
        ({"share_policy": "exclude", "share_exclude": "(a"}, "share-exclude is '(a', no regular expression: missing )"),
        ({"share_policy": "exclude", "share_exclude": "a*"}, "share-exclude is 'a*', which matches the empty text"),
        ({"share_policy": "per-user", "share_ratios": "0.5"}, "share-ratios is '0.5'; give LOW..HIGH"),
        (
            {"share_redact": "email,names"},
            "share-redact is 'email,names'; name some of email, url, phone, handle, number",
        ),
        ({"share_redact": ""}, "share-redact is ''; name some of"),
        ({"share_items": -1}, "share-items is -1"),
        ({"plugin_args": "[1]"}, "write a JSON object"),
        ({"plugin_args": '{"a:B": {}}'}, "plugin-args names 'a:B', no plug-in of this run; it names no plug-in"),
        ({"plugin_args": '{"a:B": {}}', "share_policy": "a:C"}, "no plug-in of this run; its plug-ins are a:C"),
        ({"plugin_args": '{"a:C": 3}', "share_policy": "a:C"}, "plugin-args gives 'a:C' no JSON object"),
        ({"plugin_args": '{"ratio": {}}'}, "built-in choices take none"),
        ({"plugin_dir": "plugins"}, "must be absolute"),
        ({"filters": "length,magic"}, "filters names 'magic'; known: consistency, diversity, length"),
        ({"filters": "none,length"}, "name each filter once, or write"),
        ({"filters": "length,length"}, "name each filter once, or write"),
        ({"metrics": "mae"}, "metrics names 'mae'; LaMP's metrics come with the task"),
        ({"metrics": "a:B,a:B"}, "name each metric once"),
        ({"metrics": "politeness"}, "metrics names 'politeness'; known: none is installed; or give module:Class"),
        ({"retriever": "dense"}, "retriever is 'dense'; known: bm25; or give"),
        (
            {"cloud_engine": "vllm"},
            "cloud-engine is 'vllm'; known: transformers, llama-cpp, openai, corpus-control, echo; or give",
        ),
        ({"cloud_engine": "corpus-control", "data": "/lamp"}, "data is '/lamp': set data = \"embedded\""),
        ({"cloud_engine": "corpus-control", "task": "lamp-7"}, "for lamp-2, lamp-3, lamp-4, lamp-5; task is 'lamp-7'"),
        (
            {"cloud_engine": "corpus-control", "methods": "cdcda,cloud"},
            "answers no questions; leave the method cloud out",
        ),
        ({"consistency_scorer": "cosine"}, "consistency-scorer is 'cosine'; known: embedding, nli, echo"),
        ({"methods": "rkd-ft", "device_executor": "echo"}, "device-executor is 'echo'; rkd-ft needs"),
        ({"epsilon_min_len": 2.0}, "must be above epsilon-min-len"),
        ({"eda_alpha_sr": 1.5}, "eda-alpha-sr is 1.5"),
        ({f"eda_alpha_{name}": 0 for name in ("sr", "ri", "rs", "rd")}, "eda-alpha-rd is 0.0, as -sr, -ri and -rs are"),
        ({"num_users": True}, "num-users is True"),
        ({"num_users": 2.5}, "num-users is 2.5"),
        ({"swap_test": 1}, "swap-test is 1"),
        ({"seed": -1}, "seed is -1"),
        ({"k": 101}, "k is 101"),
        ({"temperature": 0}, "temperature is 0.0"),
        ({"prompt_form": "free"}, "'guided' or 'paper'"),
        ({"cloud_engine": "openai"}, "cloud-model is 'embedded'; with cloud-engine"),
        ({"cloud_url": "localhost:8000/v1"}, "cloud-url is 'localhost:8000/v1'; it must be http:// or https://"),
        ({"cloud_url": "http://127.0.0.1:port/v1"}, "cloud-url is no url"),
        ({"cloud_url": "https://me:sk-1@host/v1"}, "cloud-url holds more than host and path"),
        (
            {"cloud_url": "https://host/v1?key=sk-1"},
            "a key belongs in an environment variable (docs/how-to/cloud-server.md)",
        ),
        ({"cloud_concurrency": 0}, "cloud-concurrency is 0"),
        ({"cloud_timeout_s": 0}, "cloud-timeout-s is 0"),
        ({"cloud_retries": -1}, "cloud-retries is -1"),
        ({"cloud_body": "top_k"}, "cloud-body is no JSON"),
        ({"cloud_body": "[1]"}, "cloud-body is '[1]'; write a JSON object such as '{\"top_k\": null}'"),
        ({"cloud_body": '{"seed": 1, "model": "x"}'}, "cloud-body names model, seed; the engine sets these itself"),
        ({"cloud_body": '{"stop": "x", "top_k": 1, "grammar": ""}'}, "cloud-body names grammar, stop; the engine sets"),
    ],
)
def test_a_wrong_value_names_key_value_and_rule(changes: dict[str, Scalar], said: str) -> None:
    (line,) = _lines(**changes)
    assert said in line
    assert "sk-1" not in line


def test_everything_that_keeps_an_api_from_working_is_said_at_once() -> None:
    lines = _lines(cloud_engine="openai", cloud_url="here", cloud_retries=-1)
    assert [line.split()[0] for line in lines] == ["cloud-model", "cloud-url", "cloud-retries"]


def test_a_body_may_end_answers_that_are_not_begun() -> None:
    assert _config(prompt_form="paper", cloud_body='{"stop": "x"}').cloud_body


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^seed is missing$"):
        RunConfig.from_flwr({key: value for key, value in DEFAULTS.items() if key != "seed"})


def test_doubles_are_listed() -> None:
    assert _config().doubles == ()
    config = _config(cloud_engine="echo", device_executor="echo", consistency_scorer="echo")
    assert config.doubles == ("cloud-engine", "consistency-scorer", "device-executor")


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        _config().k = 3


def test_composed_methods_are_chosen_by_name_in_the_order_written() -> None:
    config = _config(methods="global>cdcda+rag, direct-ft,direct-ft+rag", share_ratio=0.2)
    assert [method.name for method in config.chosen_methods] == ["global>cdcda+rag", "direct-ft", "direct-ft+rag"]
    assert [(m.start, m.retrieval) for m in config.chosen_methods] == [
        ("global", True),
        ("base", False),
        ("base", True),
    ]


def test_share_policies_are_chained_and_say_what_is_redacted() -> None:
    chained = _config(share_policy="exclude + redact+ratio", share_exclude=r"clinic|\bDr\.", share_redact="email, url")
    assert chained.share_policies == ("exclude", "redact", "ratio")
    assert chained.redacts == ("email", "url")
    assert _config().redacts == ()
    assert _config(share_policy="a:B+redact+c:D", plugin_args='{"c:D": {}}').share_policies == ("a:B", "redact", "c:D")
    # A bound on what leaves holds where nothing does.
    assert _config(share_policy="none", share_exclude="x", share_items=3, methods="cdcda").share_items == 3
    # Labels are not redacted, so a teacher may speak of them.
    assert _config(share_policy="redact+ratio", methods="rkd-ft", task="lamp-3").redacts
