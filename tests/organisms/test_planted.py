from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
from scipy.special import logit

from mechicl.analyses.priming import measure_priming
from mechicl.hooks.scoring import score
from mechicl.hooks.wrapper import wrap
from mechicl.organisms.planted import planted_decoys, planted_ife, planted_null, planted_priming
from mechicl.organisms.planted_language import planted_corpus
from mechicl.stats import slopes
from mechicl.tasks.prompts import tokenize

FORMS, CONTEXTS = ("PD", "DO"), ("PD", "DO", "neutral", "unprimed")
WORDS = {"n_verbs": 5, "n_persons": 8, "n_things": 6}
EXACT = 1e-5


def corpus(**more):
    return planted_corpus(**WORDS, **{"targets_per_verb": 2, "seed": 5, **more})


@cache
def model(kind, noisy=False):
    make = {"ife": planted_ife, "priming": planted_priming, "decoys": planted_decoys, "null": planted_null}[kind]
    strength = {"decoys": {"strength": 1.3, "priming_strength": 0.7}, "null": {}}.get(kind, {"strength": 1.3})
    noise = {"noise": 0.3, "item_noise": 0.2} if noisy else {}
    return make(n_layers=3, **WORDS, corpus=corpus(), seed=3, **strength, **noise)


def biases(planted):
    """The biases of each item's prime verb and target verb."""
    frame = planted.corpus.to_frame()
    return tuple(frame[side].map(planted.bias).to_numpy() for side in ("prime_verb", "target_verb"))


# L, bias, priming and slopes, as the analyses measure them


@pytest.mark.parametrize("kind", ["ife", "priming", "decoys", "null"])
def test_measured_values_equal_the_formulas(kind) -> None:
    planted = model(kind)
    found = measure_priming(planted.model, planted.corpus, n_boot=100, progress=False)
    prime, target = biases(planted)
    k, c = {"ife": (1.3, 0), "priming": (0, 1.3), "decoys": (1.3, 0.7), "null": (0, 0)}[kind]
    formula = dict.fromkeys(CONTEXTS, logit(target))
    formula |= {"PD": logit(target) + k * (1 - prime) + c / 2, "DO": logit(target) - k * prime - c / 2}
    for context in CONTEXTS:
        np.testing.assert_allclose(found.items[f"L_{context}"], formula[context], atol=EXACT)
        np.testing.assert_allclose(planted.expected_L(context), formula[context], atol=1e-12)
    np.testing.assert_allclose(found.bias["bias"], found.bias["verb"].map(planted.bias), atol=EXACT)
    effects = found.effects.set_index(["contrast", "scale"])["estimate"]
    assert effects["PD vs DO", "nats"] == pytest.approx(k + c, abs=EXACT)
    table = found.verb_table()
    x = table["verb"].map(planted.bias).to_numpy()
    measured = [float(slopes(x, table[f"L_{s}_adjusted"].to_numpy())) for s in ("PD", "DO", "neutral")]
    np.testing.assert_allclose(measured, [-k, -k, 0], atol=5e-5)  # 1e-5 in L, over biases from .1 to .9
    truth = planted.truth
    np.testing.assert_allclose(
        [truth.M, truth.slope_PD, truth.slope_DO, truth.slope_neutral, truth.common_shift_from_neutral],
        [k + c, -k, -k, 0, k],
        atol=1e-12,
    )


@pytest.mark.parametrize("kind", ["ife", "priming", "decoys", "null"])
def test_with_noise_every_item_has_its_expected_L(kind) -> None:
    planted, quiet = model(kind, True), model(kind)
    found = measure_priming(planted.model, planted.corpus, n_boot=100, progress=False)
    for context in CONTEXTS:
        np.testing.assert_allclose(found.items[f"L_{context}"], planted.expected_L(context), atol=EXACT)
    for form in FORMS:
        assert np.std(planted.expected_L(form) - quiet.expected_L(form)) > 0.1
    assert (found.items["L_PD"] - found.items["L_DO"]).mean() == pytest.approx(planted.truth.M, abs=EXACT)
    x = np.array([planted.bias[verb] for verb in planted.corpus.verbs])
    means = found.items.assign(L=found.items["L_PD"] - found.items["L_unprimed"]).groupby("prime_verb")["L"].mean()
    assert float(slopes(x, means.to_numpy())) == pytest.approx(planted.truth.slope_PD, abs=5e-5)


def test_the_null_model_does_not_prime_at_all() -> None:
    planted = model("null")
    items = measure_priming(planted.model, planted.corpus, n_boot=100, progress=False).items
    assert np.abs(items["L_PD"] - items["L_DO"]).max() < 2e-6
    assert np.abs(items["L_PD"] - items["L_neutral"]).max() < 2e-6


def test_double_precision_and_other_sizes() -> None:
    small = planted_ife(n_layers=2, n_heads=1, n_verbs=2, n_persons=4, n_things=2, strength=-2.0, dtype="float64")
    assert next(small.model.parameters()).dtype == torch.float64 and small.heads["spare"] == ()
    items = measure_priming(small.model, small.corpus, n_boot=100, progress=False).items
    np.testing.assert_allclose(items["L_PD"] - items["L_DO"], -2.0, atol=EXACT)


def test_slopes_over_another_x() -> None:
    planted = model("ife")
    p = np.array([planted.bias[verb] for verb in planted.corpus.verbs])
    slope = -1.3 * np.cov(p, logit(p))[0, 1] / np.var(logit(p), ddof=1)
    assert planted.truth_over(logit(p)).slope_DO == pytest.approx(slope, abs=1e-12)


# What each head does: patched one by one, with plain hooks


class Bench:
    """All items of a planted corpus after primes of one form, and z of every head at the target's or prime's tokens."""

    def __init__(self, planted, form, role):
        self.wrapped = wrap(planted.model)
        self.tokens, self.spans, self.starts, self.z = {}, {}, {}, {}
        for end in FORMS:
            texts = [planted.corpus.prime_target(i, form, end) for i in range(len(planted.corpus))]
            prompts = [tokenize(text, planted.model.tokenizer, prepend_bos=True) for text in texts]
            self.tokens[end] = torch.tensor([p.tokens for p in prompts])  # one form has one length
            self.spans[end], self.starts[end] = slice(*prompts[0].roles[role]), prompts[0].roles["target"][0]
            found = {}
            self._L(end, [("z", layer, self._keeper(found, layer, end)) for layer in range(self.wrapped.n_layers)])
            self.z[end] = found  # layer -> [item, pos, head, d_head]

    def _keeper(self, found, layer, end):
        return lambda z: found.__setitem__(layer, z[:, self.spans[end]].clone())

    def _L(self, end, hooks):
        with self.wrapped.evaluating(), self.wrapped.hooked(hooks):
            log_probs = self.wrapped.model(self.tokens[end], return_type="logits").double().log_softmax(-1)
        start = self.starts[end]
        ids = self.tokens[end][:, start:, None]
        return log_probs[:, start - 1 : -1].gather(-1, ids)[..., 0].sum(-1)

    def L(self, *patches):
        """L of every item, with (layer, head, values of each target form) in place of z at the role's tokens."""

        def hook(head, values, span):
            def replace(z):
                z[:, span, head] = values
                return z

            return replace

        logs = [
            self._L(end, [("z", layer, hook(head, values[end], self.spans[end])) for (layer, head), values in patches])
            for end in FORMS
        ]
        return (logs[0] - logs[1]).numpy()


def other_verbs_mean(planted, bench, head):
    verbs = planted.corpus.to_frame()["prime_verb"].to_numpy()
    weights = torch.tensor(verbs[:, None] != verbs[None], dtype=torch.float32)
    weights /= weights.sum(1, keepdim=True)
    z = {end: bench.z[end][head[0]][:, :, head[1]] for end in FORMS}
    return {end: torch.einsum("ij,jpd->ipd", weights, values) for end, values in z.items()}


def patch_values(planted, benches, form, head, intervention):
    if intervention == "mean":
        return other_verbs_mean(planted, benches[form], head)
    other = benches[FORMS[form == FORMS[0]]]
    gain = 0 if intervention == "zero" else 1
    return {end: gain * other.z[end][head[0]][:, :, head[1]] for end in FORMS}


@cache
def hooked_effects(kind, noisy, intervention):
    """Form -> what patching each head alone does to every item, by hooks."""
    planted = model(kind, noisy)
    benches = {form: Bench(planted, form, "target") for form in FORMS}
    found = {}
    for form, bench in benches.items():
        effect, clean = np.zeros((3, 4, len(planted.corpus))), bench.L()
        for head in product(range(3), range(4)):
            values = patch_values(planted, benches, form, head, intervention)
            effect[head] = bench.L((head, values)) - clean
        found[form] = effect
    return found


@pytest.mark.parametrize("intervention", ["interchange", "mean", "zero"])
@pytest.mark.parametrize(("kind", "noisy"), [("ife", True), ("priming", False), ("decoys", True), ("null", False)])
def test_closed_form_effects_equal_hooks(kind, noisy, intervention) -> None:
    planted, found = model(kind, noisy), hooked_effects(kind, noisy, intervention)
    for form in FORMS:
        np.testing.assert_allclose(planted.item_effects(intervention, form), found[form], atol=EXACT)
    frame = planted.effects(intervention).set_index(["layer", "head"])
    for (layer, head), row in frame.iterrows():
        assert (layer, head) in planted.heads[row["role"]]
        assert row["M"] == pytest.approx((found["PD"] - found["DO"])[layer, head].mean(), abs=EXACT)
    assert len(frame) == 12


@pytest.mark.parametrize("intervention", ["interchange", "mean", "zero"])
def test_only_planted_heads_have_an_effect(intervention) -> None:
    planted, found = model("decoys"), hooked_effects("decoys", False, intervention)
    strongest = np.abs([found[form] for form in FORMS]).max((0, 3))
    acts = {"mean": {"ife"}, "interchange": {"ife", "priming"}, "zero": {"priming"}}[intervention]
    for role, places in planted.heads.items():
        for head in places:
            assert strongest[head] > 0.1 if role in acts else strongest[head] < EXACT, (role, head)


def test_effects_in_numbers() -> None:
    planted = model("decoys")  # strengths 1.3 and .7, five verbs
    functionals = ["M", "slope_PD", "slope_DO", "common_shift_from_neutral"]
    want = {
        "interchange": {"ife": [-2.6, 0, 0, 0], "priming": [-1.4, 0, 0, 0]},
        "mean": {"ife": [0, 1.3 * 5 / 4, 1.3 * 5 / 4, -1.3 * 5 / 4], "priming": [0, 0, 0, 0]},
        "zero": {"ife": [0, 0, 0, 0], "priming": [-0.7, 0, 0, 0]},
    }
    for intervention, rows in want.items():
        frame = planted.effects(intervention)
        for role in frame["role"]:
            got = frame.loc[frame["role"] == role, functionals].to_numpy()
            np.testing.assert_allclose(got, [rows.get(role, [0] * 4)] * len(got), atol=1e-12)


def test_means_over_a_fixed_set_of_donors_take_away_the_slope_exactly() -> None:
    planted = model("ife")
    verbs = planted.corpus.verbs
    prime = planted.corpus.to_frame()["prime_verb"]
    held_out = ~prime.isin(verbs[:2]).to_numpy()
    dL = planted.item_effects("mean", "PD", donor_verbs=verbs[:2])[planted.heads["ife"][0]]
    p, mean = biases(planted)[0], np.mean([planted.bias[verb] for verb in verbs[:2]])
    np.testing.assert_allclose(dL[held_out], 1.3 * (p - mean)[held_out], atol=1e-12)


def test_the_backup_hides_the_ife_head_from_zero_ablation_and_from_nothing_else() -> None:
    planted = model("decoys")
    (first,), (backup,) = planted.heads["ife"], planted.heads["backup"]
    bench, p = Bench(planted, "PD", "target"), biases(planted)[0]
    nothing = dict.fromkeys(FORMS, torch.tensor(0.0))
    clean, mean = bench.L(), other_verbs_mean(planted, bench, first)
    np.testing.assert_allclose(bench.L((first, nothing)), clean, atol=EXACT)
    np.testing.assert_allclose(bench.L((backup, nothing)), clean, atol=EXACT)
    np.testing.assert_allclose(bench.L((first, nothing), (backup, nothing)), clean - 1.3 * (1 - p), atol=EXACT)
    frame = planted.corpus.to_frame()
    others = [p[(frame["prime_verb"] != verb).to_numpy()].mean() for verb in frame["prime_verb"]]
    np.testing.assert_allclose(bench.L((first, mean)), clean + 1.3 * (p - others), atol=EXACT)
    np.testing.assert_allclose(bench.L((first, mean), (backup, nothing)), bench.L((first, mean)), atol=EXACT)


def test_decoys_hold_the_bias() -> None:
    planted = model("decoys")
    for form in FORMS:
        bench = Bench(planted, form, "target.verb")
        for layer, head in planted.heads["decoy"]:
            held = bench.z["PD"][layer][:, 0, head, 0].numpy()
            np.testing.assert_allclose(held, biases(planted)[0], atol=EXACT)


def test_at_prime_positions_the_carrier_alone_matters() -> None:
    planted = model("ife")
    (carrier,), (first,) = planted.heads["carrier"], planted.heads["ife"]
    for form in FORMS:
        bench = Bench(planted, form, "prime")
        clean = bench.L()
        for head in product(range(3), range(4)):
            dL = bench.L((head, other_verbs_mean(planted, bench, head))) - clean
            if head == carrier:
                np.testing.assert_allclose(dL, planted.item_effects("mean", form)[first], atol=EXACT)
                assert np.abs(dL).max() > 0.1
            else:
                assert np.abs(dL).max() < EXACT


def test_one_token_a_word_and_any_text_can_be_read() -> None:
    planted = model("null")
    assert planted.model.tokenizer("Person00 verb01 thing02 to person03.")["input_ids"] == [11, 7, 21, 4, 14, 3]
    assert np.isfinite(score(planted.model, "Some other", [" text, unknown."], progress=False)).all()


# Places, seeds, and what is refused


def test_places_are_as_asked_and_every_head_has_one_role() -> None:
    at = {"carrier": (0, 3), "ife": (1, 0), "backup": (2, 0), "priming": (1, 2)}
    planted = planted_decoys(at=at, n_decoys=3, **WORDS, corpus=corpus())
    assert {role: planted.heads[role] for role in at} == {role: (head,) for role, head in at.items()}
    assert len(planted.heads["decoy"]) == 3
    everywhere = [head for places in planted.heads.values() for head in places]
    assert sorted(everywhere) == list(product(range(3), range(4)))


def test_seeds_decide_all_and_torch_is_left_alone() -> None:
    state = torch.get_rng_state()
    one, same, other = (planted_ife(n_layers=4, noise=0.3, **WORDS, corpus=corpus(), seed=s) for s in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state()) and not one.model.training
    assert one.heads == same.heads and wrap(one.model).checksum() == wrap(same.model).checksum()
    assert one.heads != other.heads and one.bias != other.bias


def test_a_given_bias_is_kept_and_part_of_a_corpus_will_do() -> None:
    part = corpus().where("prime_verb != 'verb03'")
    planted = planted_priming(biases=[0.2, 0.3, 0.5, 0.7, 0.95], **WORDS, corpus=part)
    assert planted.bias["verb04"] == 0.95 and planted.truth.slope_PD == pytest.approx(0, abs=1e-12)
    assert len(planted.expected_L("PD")) == len(part) and "priming" in repr(planted)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (planted_ife, {"n_layers": 1}, "2 layers or more"),
        (planted_ife, {"n_heads": 0}, "1 head or more"),
        (planted_decoys, {"n_layers": 2}, "no head is left for 'ife'"),
        (planted_decoys, {"n_heads": 2, "n_decoys": 2}, "no head is left for 'decoy 1'"),
        (planted_decoys, {"n_decoys": -1}, "n_decoys=-1"),
        (planted_decoys, {"at": {"ife": (2, 0)}}, "no head is left for 'backup'"),
        (planted_decoys, {"at": {"ife": (2, 0), "backup": (1, 0)}}, "a later layer than the IFE head"),
        (planted_decoys, {"at": {"ife": (1, 0), "priming": (1, 0)}}, "twice"),
        (planted_ife, {"at": {"ife": (0, 1)}}, r"got 'ife' at \(0, 1\)"),
        (planted_ife, {"at": {"priming": (1, 1)}}, "expected one of the roles"),
        (planted_ife, {"strength": np.inf}, "finite"),
        (planted_null, {"noise": -1.0}, "noise=-1.0"),
        (planted_null, {"biases": [0.5] * 4}, "5 probabilities"),
        (planted_null, {"biases": [0.5] * 4 + [1.0]}, "below 1"),
        (planted_null, {"dtype": "bfloat16"}, "'float32' or 'float64'"),
        (planted_null, {"n_verbs": 1}, "n_verbs=1"),
        (planted_null, {"n_persons": 3}, "n_persons=3"),
        (planted_null, {"n_things": 1}, "n_things=1"),
        (planted_null, {"n_verbs": 4}, "words that the model lacks"),
    ],
)
def test_what_cannot_be_planted_is_refused(make, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        make(**{**WORDS, "corpus": corpus(), **options})


def test_a_misspelt_size_is_refused() -> None:
    with pytest.raises(TypeError, match="n_layer"):
        planted_null(n_layer=3)


def test_questions_without_an_answer() -> None:
    planted = model("ife")
    for call, message in [
        (lambda: planted.expected_L("passive"), "context='passive'"),
        (lambda: planted.contributions("neutral"), "form='neutral'"),
        (lambda: planted.item_effects("resample", "PD"), "intervention='resample'"),
        (lambda: planted.effects("mean", donor_verbs=["verb00"]), "no donor"),
        (lambda: planted.effects("mean", donor_verbs=["give"]), "does not know"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
