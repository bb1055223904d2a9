"""The command line: results on stdout, one clear line a mistake, scores kept when it is stopped."""

import json
import re
import runpy
import subprocess
import sys
import warnings
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import mechicl
import mechicl.__main__ as command_line
from mechicl.__main__ import main
from mechicl.commands.options import DRAWN, GENERATED, PATCHED
from mechicl.organisms.shipped import organism_folder
from mechicl.tasks.datives import dative_corpus
from mechicl.tasks.speaker_pairs import speaker_corpus

VERBS = ["give", "send", "show", "throw", "find", "make", "save", "draw"]
MINUS = "\N{MINUS SIGN}"
made_up_head_map = runpy.run_path(str(Path(__file__).with_name("analyses") / "made_up.py"))["made_up_head_map"]


@pytest.fixture
def scores(tmp_path):
    """A table with known slopes: -0.2 after DO primes up to noise, none after PD primes."""
    rng = np.random.default_rng(0)
    bias = np.linspace(0.1, 0.9, 12)
    frame = pd.DataFrame({"verb": [f"verb{i}" for i in range(12)], "bias": bias})
    frame["y_PD"] = 0.8 + rng.normal(0, 0.01, 12)
    frame["y_DO"] = 0.6 - 0.2 * bias + rng.normal(0, 0.01, 12)
    path = tmp_path / "scores.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.fixture
def toy(monkeypatch):
    """Stands in for model and scoring: what was asked of them is in `loaded` and `stores`."""
    seen = SimpleNamespace(loaded=[], stores=[], stop=False)

    def load(name, **options):
        seen.loaded.append((name, options))
        return name

    def score(model, contexts, continuations, *, store=None, progress=True, **options):
        seen.stores.append((store, progress))
        if store is not None:
            store.mkdir(parents=True, exist_ok=True)
        if seen.stop:
            raise KeyboardInterrupt
        return np.random.default_rng(0).normal(size=len(contexts)) - 1

    facts = {"model": "toy", "n_params": 7}
    monkeypatch.setattr("mechicl.analyses.pages.sections.draw_all", lambda *drawings: [])
    monkeypatch.setattr(mechicl, "load", load, raising=False)
    monkeypatch.setattr("mechicl.analyses.priming.score", score)
    monkeypatch.setattr("mechicl.analyses.priming.wrap", lambda model: SimpleNamespace(facts=lambda: facts))
    return seen


@pytest.fixture
def located(toy, monkeypatch):
    """Stands in for localisation: what was asked of it is in `calls`, what it finds is `kind` of a made-up map."""
    seen = SimpleNamespace(calls=[], kind="confirmed", stop=False, toy=toy)

    def localize(model, corpus, effect, **options):
        seen.calls.append((effect, options))
        if seen.stop:
            raise KeyboardInterrupt
        return made_up_head_map(seen.kind, effect=effect)

    monkeypatch.setattr("mechicl.analyses.head_localization.localize_heads", localize)
    monkeypatch.setattr("mechicl.analyses.heads.viewer.example_attention", lambda model, maps, corpus: [])
    monkeypatch.setattr(
        "mechicl.analyses.heads.paths.paths_between_heads", lambda model, head_map, corpus, **options: None
    )
    return seen


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    dative_corpus(targets_per_verb=2, verbs=VERBS).save(folder)
    return str(folder)


def mistake(capsys, *arguments):
    """Run what must fail; return the one line that says why."""
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err
    (line,) = err.strip().splitlines()
    assert line.startswith("mechicl: error: ")
    return line


def test_ife_from_a_table_prints_verdict_and_slopes(scores, capsys):
    assert main(["ife", "--scores", str(scores)]) == 0
    out, err = capsys.readouterr()
    frame = pd.read_csv(scores)
    lines = out.splitlines()
    assert lines[0].startswith("IFE on DO primes, not on PD primes") and err == ""
    probability = out.split("logit scale")[0].splitlines()
    for form in ("PD", "DO"):
        slope = np.polyfit(frame["bias"], frame[f"y_{form}"], 1)[0]
        (line,) = [line for line in probability if f"after {form} primes" in line]
        assert f"{slope:.3f} [".replace("-", MINUS) in line and "p " in line
    assert "12 verbs" in out


def test_ife_as_json_holds_the_same_numbers(scores, capsys):
    assert main(["ife", "--scores", str(scores), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    frame = pd.read_csv(scores)
    (row,) = [e for e in found["estimates"] if (e["scale"], e["estimand"]) == ("probability", "slope_DO")]
    assert row["estimate"] == pytest.approx(np.polyfit(frame["bias"], frame["y_DO"], 1)[0])
    assert found["evidence"] == {"PD": "none", "DO": "ife"} and found["forms"] == ["PD", "DO"]
    assert len(found["verbs"]) == 12 and found["provenance"]["model"] is None


def test_published_tables_are_read_as_they_are(data_folder, capsys):
    assert main(["ife", "--scores", str(data_folder / "published_ife" / "gpt3_pronoun.csv"), "--json"]) == 0
    found = {(e["scale"], e["estimand"]): e["estimate"] for e in json.loads(capsys.readouterr().out)["estimates"]}
    assert found["probability", "slope_PD"] == pytest.approx(-0.078, abs=5e-4)  # as printed in the paper
    assert found["probability", "slope_DO"] == pytest.approx(-0.078, abs=5e-4)


def test_foreign_columns_forms_and_norms(scores, tmp_path, capsys):
    frame = pd.read_csv(scores)
    foreign = tmp_path / "foreign.csv"
    frame.rename(columns={"y_PD": "after active", "y_DO": "after passive"}).to_csv(foreign, index=False)
    norms = tmp_path / "norms.csv"
    frame[["verb"]].assign(bias=1 - frame["bias"]).to_csv(norms, index=False)
    asked = ["--forms", "active", "passive", "--outcomes", "after active", "after passive", "--norms", str(norms)]
    assert main(["ife", "--scores", str(foreign), *asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (row,) = [e for e in found["estimates"] if (e["scale"], e["estimand"]) == ("probability", "slope_passive")]
    # The norms are the bias upside down, so the slope changes its sign.
    assert row["estimate"] == pytest.approx(-np.polyfit(frame["bias"], frame["y_DO"], 1)[0])


def test_warnings_are_one_line_and_no_mistake(scores, tmp_path, capsys):
    norms = tmp_path / "norms.csv"
    pd.read_csv(scores)[["verb", "bias"]].iloc[1:].to_csv(norms, index=False)
    assert main(["ife", "--scores", str(scores), "--norms", str(norms)]) == 0
    assert capsys.readouterr().err.strip() == "mechicl: warning: dropped the verbs without a norm: verb0"


def test_the_same_warning_is_said_once(monkeypatch, capsys):
    def noisy(options, arguments):
        for i in range(3):
            warnings.warn_explicit("few verbs", UserWarning, "file", i)

    monkeypatch.setattr(command_line, "_models", noisy)
    assert main(["models"]) == 0
    assert capsys.readouterr().err == "mechicl: warning: few verbs\n"


def test_report_from_scores_to_page(toy, corpus, tmp_path, capsys):
    out = tmp_path / "out"
    asked = ["report", "--model", "some/model", "--corpus", corpus, "--out", str(out), "--dtype", "bfloat16"]
    asked += ["--parts", "priming"]
    assert main(asked) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0].startswith("Does it show structural priming? ")
    assert printed.out.splitlines()[1].startswith("Does it show the inverse frequency effect? ")
    assert printed.out.splitlines()[2] == f"Report: {(out / 'index.html').resolve()}"
    assert "112 pairs of prime and target, 8 verbs" in printed.err
    page = unescape((out / "index.html").read_text(encoding="utf-8"))
    assert f"mechicl report --model some/model --corpus {corpus}" in page and "<code>corpus/</code>" in page
    assert toy.loaded == [("some/model", {"device": None, "dtype": "bfloat16"})]
    assert toy.stores == [(out / "scores", True)]

    line = mistake(capsys, *asked)
    assert "already holds a report" in line and len(toy.loaded) == 1, "refused before anything was scored"
    assert main([*asked, "--overwrite", "--quiet"]) == 0
    assert capsys.readouterr().err == "" and toy.stores[-1] == (out / "scores", False)


def test_report_goes_to_a_folder_named_after_the_model(toy, corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["report", "--model", "org/name: 1", "--corpus", corpus, "--quiet", "--parts", "priming"]) == 0
    assert (tmp_path / "report" / "org-name-1" / "index.html").is_file()


def test_heads_are_localised_said_and_reported(located, corpus, tmp_path, capsys):
    out = tmp_path / "out"
    asked = ["heads", "--model", "toy", "--corpus", corpus, "--out", str(out), "--effect", "priming", "ife"]
    assert main([*asked, "--roles", "prime", "last", "--scale", "probability", "--seed", "3"]) == 0
    printed = capsys.readouterr().out
    assert made_up_head_map().verdict in printed and made_up_head_map(effect="ife").verdict in printed
    row = made_up_head_map().heads.set_index("name").loc["L12H4"]
    (first, second) = [line for line in printed.splitlines() if line.startswith("  L12H4 ")]
    assert f"{MINUS}{-row['confirm_effect']:.3f} [" in first and first.endswith("confirmed") and first == second
    assert printed.splitlines()[-1] == f"Report: {(out / 'index.html').resolve()}"
    assert [effect for effect, _ in located.calls] == ["priming", "ife"]
    options = located.calls[0][1]
    assert options["roles"] == ("prime", "last") and options["scale"] == "probability" and options["seed"] == 3
    assert options["ablation"] is None and options["progress"] is True and options["store"] == out
    assert {name: options[name] for name in ("n_items", "n_random")} == PATCHED["default"]
    assert options["primed"].items.shape[0] == 112 and len(located.toy.stores) == 1, "scored once, for all effects"
    page = unescape((out / "index.html").read_text(encoding="utf-8"))
    assert "Which heads drive the inverse frequency effect?" in page and "mechicl heads --model toy" in page
    assert (out / "frames" / "heads_ife.csv").is_file() and (out / "results" / "heads_priming").is_dir()


def test_heads_as_json_hold_the_map(located, corpus, tmp_path, capsys):
    asked = ["heads", "--model", "toy", "--corpus", corpus, "--out", str(tmp_path / "out"), "--json", "--quiet"]
    assert main([*asked, "--items", "40", "--candidates", "5", "--ablation", "mean", "--size", "small"]) == 0
    found = json.loads(capsys.readouterr().out)
    (head_map,) = found["maps"]
    assert found["report"] == str((tmp_path / "out" / "index.html").resolve())
    assert head_map["confirmed"] == ["L12H4", "L17H2", "L9H7", "L21H5"] and len(head_map["heads"]) == 270
    assert head_map["heads"][0]["effect"] == made_up_head_map().heads["effect"][0]
    assert head_map["heads"][0]["confirm_p"] is None, "what is not finite becomes null"
    options = located.calls[0][1]
    assert (options["n_items"], options["n_candidates"], options["ablation"]) == (40, 5, "mean")
    assert options["n_random"] == PATCHED["small"]["n_random"] and options["progress"] is False


@pytest.mark.parametrize("kind", ["none", "gated"])
def test_finding_no_head_is_a_result(located, corpus, tmp_path, kind, capsys):
    located.kind = kind
    assert main(["heads", "--model", "toy", "--corpus", corpus, "--out", str(tmp_path / "out"), "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert made_up_head_map(kind).verdict in out and "confirmed\n" not in out and err == ""


def test_a_report_says_heads_where_asked(located, corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = ["--model", "toy", "--corpus", corpus, "--quiet"]
    assert main(["report", *asked, "--parts", "priming"]) == 0 and located.calls == []
    assert main(["report", *asked, "--parts", "heads", "--overwrite"]) == 0
    assert [effect for effect, _ in located.calls] == ["priming", "ife"]
    assert len(located.toy.stores) == 2, "scored once a command"
    out = capsys.readouterr().out.splitlines()
    assert out[-3].startswith("Which heads drive structural priming? 4 of 270 heads. ")
    assert "Which heads drive structural priming?" in (tmp_path / "report" / "toy" / "index.html").read_text("utf-8")
    assert main(["heads", *asked]) == 0
    assert (tmp_path / "report" / "toy-heads" / "index.html").is_file(), "the other report stays"


def test_an_interrupted_localisation_goes_on_from_the_same_folder(located, corpus, tmp_path, capsys):
    asked = ["heads", "--model", "toy", "--corpus", corpus, "--out", str(tmp_path / "out"), "--quiet"]
    located.stop = True
    assert main(asked) == 130
    err = capsys.readouterr().err
    assert f"kept in {tmp_path / 'out'}" in err and "same command" in err and "Traceback" not in err
    located.stop = False
    assert main(asked) == 0
    assert located.calls[0][1]["store"] == located.calls[1][1]["store"] == tmp_path / "out"


def test_ife_with_a_model_scores_generated_sentences(toy, capsys):
    assert main(["ife", "--model", "toy", "--size", "small", "--pronoun", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert "slope after PD primes" in out and err == "" and toy.stores == [(None, False)]


def test_primelm_files_are_sampled_by_size(toy, tmp_path, monkeypatch, capsys):
    rows = [
        f"a boy {p} a cup to a girl .,a boy {p} a girl a cup .,the man {t} the hat to me .,the man {t} me the hat ."
        for p in ("gave", "sent", "sold", "threw")
        for t in ("gave", "sent", "sold", "threw")
    ]
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join(["ppo,pdo,tpo,tdo", *rows]))
    monkeypatch.setitem(DRAWN, "small", 8)
    for size, n_pairs in (("small", 8), ("paper", 16)):
        assert main(["ife", "--model", "toy", "--corpus", str(path), "--size", size]) == 0
        out, err = capsys.readouterr()
        assert "slope after PO primes" in out and f"{n_pairs} pairs" in err


def test_an_interrupted_report_says_what_is_kept_and_goes_on(toy, corpus, tmp_path, capsys):
    asked = ["report", "--model", "toy", "--corpus", corpus, "--out", str(tmp_path / "out"), "--quiet"]
    asked += ["--parts", "priming"]
    toy.stop = True
    assert main(asked) == 130
    err = capsys.readouterr().err
    assert f"kept in {tmp_path / 'out'};" in err and "same command" in err and "Traceback" not in err
    assert not (tmp_path / "out" / "index.html").exists()
    toy.stop = False
    assert main(asked) == 0
    assert toy.stores[0][0] == toy.stores[1][0], "the second run looks where the first one kept its scores"


def test_an_interrupted_ife_says_how_to_keep_scores(toy, corpus, tmp_path, capsys):
    toy.stop = True
    asked = ["ife", "--model", "toy", "--corpus", corpus, "--quiet"]
    assert main(asked) == 130
    assert "--keep FOLDER" in capsys.readouterr().err
    assert main([*asked, "--keep", str(tmp_path / "kept")]) == 130
    assert f"kept in {tmp_path / 'kept'}" in capsys.readouterr().err


def test_models_says_what_is_ready_and_what_makes_it_so(monkeypatch, capsys):
    rows = [
        SimpleNamespace(name="one", ready=True, detail="converted", command=""),
        SimpleNamespace(name="another", ready=False, detail="missing package x", command="pip install x"),
    ]
    monkeypatch.setattr("mechicl.models.model_status", lambda: rows)
    assert main(["models"]) == 0
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.split() == ["one", "ready", "converted"]
    assert second.startswith("another  not ready") and third.endswith("pip install x")


def test_the_known_models_are_listed(capsys):
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in mechicl.KNOWN_MODELS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ife"], "either --model"),
        (["ife", "--model", "m", "--scores", "s.csv"], "either --model"),
        (["ife", "--scores", "absent.csv"], "there is no file absent.csv"),
        (["ife", "--model", "m", "--outcomes", "a", "b"], "belongs to --scores"),
        (["ife", "--model", "m", "--corpus", "absent"], "there is no file or folder absent"),
        (["report", "--model", "m", "--out", "o", "--corpus", "absent.csv"], "there is no file or folder absent.csv"),
        (["ife", "--model", "m", "--corpus", ".", "--pronoun"], "--pronoun"),
        (["ife", "--model", "m", "--corpus", "."], "holds no complete corpus"),
        (["heads", "--model", "m", "--effect", "prming"], "unknown effect 'prming'"),
        (["heads", "--model", "m", "--effect"], "name at least one effect"),
        (["heads", "--model", "m", "--effect", "ife_PO"], "expected one of priming, ife, ife_PD, ife_DO"),
        (["ife", "--model", "smolm2", "--size", "small", "--quiet"], "did you mean 'smollm2'"),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert message in mistake(capsys, *arguments)


def test_tables_without_the_columns_or_rows_are_refused(scores, tmp_path, capsys):
    poor = tmp_path / "poor.csv"
    pd.read_csv(scores).drop(columns="y_DO").to_csv(poor, index=False)
    assert "y_DO" in mistake(capsys, "ife", "--scores", str(poor))
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    assert "No columns" in mistake(capsys, "ife", "--scores", str(empty))


def test_mistakes_can_be_traced(tmp_path, monkeypatch):
    monkeypatch.setenv("MECHICL_DEBUG", "1")
    with pytest.raises(FileNotFoundError):
        main(["ife", "--scores", str(tmp_path / "absent.csv")])


@pytest.mark.parametrize("arguments", [["nonsense"], ["report"], ["report", "--model", "m", "--size", "huge"], []])
def test_what_does_not_parse_is_said_by_the_parser(arguments, capsys):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err != "" and "Traceback" not in err


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mechicl {mechicl.__version__}\n"


@pytest.mark.parametrize("argument", ["--help", "models"])
def test_quick_answers_load_no_heavy_library(argument):
    code = (
        "import sys; from mechicl.__main__ import main; code = main([sys.argv[1]]); "
        "heavy = {'torch', 'transformer_lens', 'transformers', 'pandas', 'matplotlib', 'scipy'} & set(sys.modules); "
        "print(heavy, file=sys.stderr); sys.exit(code or bool(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code, argument], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "smollm2" in done.stdout or "report" in done.stdout


@pytest.mark.parametrize("size", ["small", "default"])
def test_generated_sizes_give_every_prime_verb_the_same_targets(size):
    """Determiners shift the share of PD a lot, so all verbs must meet as many with "the"."""
    pairs = dative_corpus(seed=1, **GENERATED[size]).to_frame()
    counts = pairs.groupby(["prime_verb", "target_verb", "prime_determiner"]).size()
    n_verbs = pairs["prime_verb"].nunique()
    assert len(counts) == n_verbs * (n_verbs - 1) * 2 and counts.min() == counts.max()


def test_what_cannot_give_a_slope_is_refused_before_the_model_is_loaded(toy, tmp_path, capsys):
    two = dative_corpus(verbs=["give", "make"], targets_per_verb=2).save(tmp_path / "two")
    assert main(["ife", "--model", "toy", "--corpus", str(two)]) == 2
    assert "slope undefined with 2 verbs (give, make)" in capsys.readouterr().err
    norms = tmp_path / "norms.csv"
    pd.DataFrame({"verb": ["give", "send"], "bias": [0.2, 0.4]}).to_csv(norms, index=False)
    assert main(["ife", "--model", "toy", "--size", "small", "--norms", str(norms)]) == 2
    assert "slope undefined with 2 verbs that have a norm" in capsys.readouterr().err
    assert toy.loaded == []


@pytest.fixture(scope="module")
def speakers(tmp_path_factory):
    """A corpus for the trained organisms, whose folders `--model` takes."""
    folder = tmp_path_factory.mktemp("speakers") / "corpus"
    verbs = sorted(speaker_corpus(targets_per_verb=1).verbs)[::2]
    speaker_corpus(targets_per_verb=1, verbs=verbs, seed=1).save(folder)
    return str(folder)


def test_gradient_steps_are_taken_said_and_reported(speakers, tmp_path, capsys):
    out = tmp_path / "out"
    asked = ["gradient", "--model", str(organism_folder("delta-medium")), "--corpus", speakers, "--out", str(out)]
    asked += ["--quiet", "--size", "small"]
    assert main([*asked, "--json", "--steps", "2", "--learning-rate", "0.003"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["steps"], found["learning_rate"], found["optimizer"]) == (2, 0.003, "sgd")
    assert found["share_diverged"] == 0 and found["mlp_verified"] is True and len(found["match"]) == 8
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "Does learning in context go like a gradient step?" in page
    assert found["verdict"].split(" (r ")[0] in unescape(page)
    kept = {path.name: path.stat().st_mtime_ns for path in (out / "steps").glob("*.safetensors")}
    assert kept and mistake(capsys, *asked).count("already holds a report") == 1
    assert main([*asked, "--overwrite", "--steps", "2", "--learning-rate", "0.003"]) == 0
    text = capsys.readouterr().out
    assert (
        found["verdict"] in text and "PD primes,   between verbs" in text and text.splitlines()[-1].startswith("Report")
    )
    again = {path.name: path.stat().st_mtime_ns for path in (out / "steps").glob("*.safetensors")}
    assert again == kept, "steps that were taken are not taken again"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--optimizer", "adam"], "pass a learning rate"),
        (["--learning-rate", "-1"], "expected a number above 0"),
        (["--steps", "0", "--learning-rate", "0.1"], "at least 1"),
    ],
)
def test_steps_that_cannot_be_taken_are_refused_in_a_line(speakers, tmp_path, arguments, words, capsys):
    model = str(organism_folder("delta-medium"))
    asked = ["gradient", "--model", model, "--corpus", speakers, "--out", str(tmp_path), "--quiet"]
    assert re.search(words, mistake(capsys, *asked, *arguments))
    assert not (tmp_path / "scores").exists(), "said before anything is scored"


def test_divergence_is_said_in_a_line(speakers, tmp_path, capsys):
    asked = ["gradient", "--model", str(organism_folder("delta-medium")), "--corpus", speakers, "--out", str(tmp_path)]
    line = mistake(capsys, *asked, "--quiet", "--learning-rate", "1e30")
    assert "diverges with learning_rate=1e+30" in line and (tmp_path / "scores").is_dir()


def test_too_few_verbs_for_the_account_are_refused_before_scoring(tmp_path, capsys):
    speaker_corpus(targets_per_verb=1, verbs=["gave", "sold", "sent"]).save(tmp_path / "corpus")
    asked = ["--model", str(organism_folder("delta-medium")), "--corpus", str(tmp_path / "corpus"), "--quiet"]
    line = mistake(capsys, "report", "--parts", "gradient", *asked, "--out", str(tmp_path / "out"))
    assert "at least 4 are needed" in line and not (tmp_path / "out" / "scores").exists()
