"""Files in the PrimeLM format: forms, verbs and roles found, bad files refused."""

import pytest

from mechicl.tasks.corpus import load_corpus
from mechicl.tasks.dative_words import VERBS
from mechicl.tasks.primelm import read_primelm
from mechicl.tasks.sentence_parts import Words, dative_parts, find_verbs, tidy

# a sentence in both forms a line
HARP = "a queen loaned a harp to a clown .,a queen loaned a clown a harp ."
POEM = "an elf wrote an ode for her .,an elf wrote her an ode ."
PIE = "the vet baked the pie for the twins .,the vet baked the twins the pie ."
SONG = "the cook wrote the song for him .,the cook wrote him the song ."
DATIVE = f"ppo, pdo, tpo, tdo\n{HARP},{PIE}\n{HARP},{SONG}\n{POEM},{SONG}\n"

CHASE = "a dog chased a cat .,a cat was chased by a dog ."
KISS = "the maid has kissed him .,he has been kissed by the maid ."
AUNT = "his aunt kissed the twin .,the twin was kissed by his aunt ."
PASSIVE = f"pact,ppass,tact,tpass\n{CHASE},{KISS}\n{AUNT},{CHASE}\n"

ATE = "a dog ate a cat .,a cat was eaten by a dog ."
SAW = "a fat maid saw him .,he was seen by a fat maid ."
IRREGULAR = f"pact,ppass,tact,tpass\n{ATE},{SAW}\n"


def written(folder, text):
    path = folder / "file.csv"
    path.write_text(text)
    return path


@pytest.fixture
def dative(tmp_path):
    return read_primelm(written(tmp_path, DATIVE))


@pytest.fixture
def passive(tmp_path):
    return read_primelm(written(tmp_path, PASSIVE))


def parts(corpus, pair, side, form):
    text = corpus.text(corpus.pairs[side][pair], form)
    return {role: text.part(role) for role in text.roles}


# ---------------------------------------------------------------------------------------- what is read


def test_texts_are_tidied(dative):
    assert dative.forms == ("PO", "DO")
    assert dative.name == "file"
    row = dative.to_frame().iloc[0]
    assert row["prime_PO"] == "A queen loaned a harp to a clown."
    assert row["target_DO"] == "The vet baked the twins the pie."
    both = dative.prime_target(0, "DO", "PO")
    assert both.text == "A queen loaned a clown a harp. The vet baked the pie for the twins."
    assert tidy(" a  man , who slept , woke  . ") == "A man, who slept, woke."


def test_repeated_sentences_are_one(dative):
    assert len(dative) == 3
    assert len(dative.sentences) == 4
    assert dative.pairs["prime"][0] == dative.pairs["prime"][1]
    assert dative.pairs["target"][1] == dative.pairs["target"][2]


def test_verbs_and_factors(dative):
    frame = dative.to_frame()
    assert frame["prime_verb"].tolist() == ["loaned", "loaned", "wrote"]
    assert frame["target_verb"].tolist() == ["baked", "wrote", "wrote"]
    assert frame["same_verb"].tolist() == [False, False, True]
    assert frame["prime_preposition"].tolist() == ["to", "to", "for"]
    assert frame["shared_preposition"].tolist() == [False, False, True]


def test_dative_roles(dative):
    assert parts(dative, 0, "prime", "PO") == {
        "subject": "A queen",
        "verb": "loaned",
        "post_verb": "a harp to a clown",
        "theme": "a harp",
        "preposition": "to",
        "recipient": "a clown",
    }
    assert parts(dative, 2, "prime", "DO") == {
        "subject": "An elf",
        "verb": "wrote",
        "post_verb": "her an ode",
        "recipient": "her",
        "theme": "an ode",
    }


def test_neutral_is_the_prepositional_form_without_its_phrase(dative):
    assert dative.text("s00000", "neutral").text == "A queen loaned a harp."
    neutral = {"subject": "A queen", "verb": "loaned", "post_verb": "a harp", "theme": "a harp"}
    assert parts(dative, 0, "prime", "neutral") == neutral


def test_the_order_of_the_forms_is_the_files(dative, tmp_path):
    rows = [line.split(",") for line in DATIVE.splitlines()]
    swapped = "\n".join(",".join(row[i].strip() for i in (1, 0, 3, 2)) for row in rows)
    other = read_primelm(written(tmp_path, swapped))
    assert other.forms == ("DO", "PO")
    assert other.pairs.equals(dative.pairs)
    assert other.sentences[list(dative.sentences.columns)].equals(dative.sentences)
    keys = ["sentence", "form", "role"]
    assert other.spans.sort_values(keys).to_numpy().tolist() == dative.spans.sort_values(keys).to_numpy().tolist()


def test_active_and_passive(passive):
    assert passive.forms == ("ACT", "PASS")
    assert passive.verbs == ("chased", "kissed")
    assert parts(passive, 0, "prime", "ACT") == {"subject": "A dog", "verb": "chased", "post_verb": "a cat"}
    assert parts(passive, 0, "prime", "PASS") == {"subject": "A cat", "verb": "chased", "post_verb": "by a dog"}
    assert parts(passive, 0, "target", "ACT") == {"subject": "The maid", "verb": "kissed", "post_verb": "him"}
    assert parts(passive, 0, "target", "PASS") == {"subject": "He", "verb": "kissed", "post_verb": "by the maid"}
    assert parts(passive, 1, "prime", "PASS")["post_verb"] == "by his aunt"
    assert passive.pairs["prime"][0] == passive.pairs["target"][1]
    assert "chased" in passive.prime_target(0, "PASS", "ACT").part("prime.verb")


def test_only_datives_have_a_neutral_text_and_prepositions(passive):
    assert passive.sentences["neutral"].isna().all()
    assert list(passive.pairs.columns) == ["prime", "target", "same_verb"]


def test_index_columns_are_ignored(dative, tmp_path):
    lines = DATIVE.splitlines()
    named = "\n".join(f"{i if i else ''},{line}" for i, line in enumerate(lines))
    unnamed = "\n".join([lines[0], *(f"{i},{line}" for i, line in enumerate(lines[1:]))])
    for text in (named, unnamed, "\ufeff" + DATIVE):
        assert read_primelm(written(tmp_path, text)) == dative


def test_known_verbs_go_by_their_lemma(tmp_path):
    known = DATIVE.replace("loaned", "sent").replace("baked", "bought").replace("wrote", "drew")
    assert read_primelm(written(tmp_path, known)).verbs == ("buy", "draw", "send")
    assert read_primelm(tmp_path / "file.csv", verbs={"sent": "sent", "bought": "BUY", "drew": "draw"}).verbs == (
        "BUY",
        "draw",
        "sent",
    )
    mixed = DATIVE.replace("loaned", "sent")  # not all are known: no lemmas
    assert read_primelm(written(tmp_path, mixed)).verbs == ("baked", "sent", "wrote")


# ------------------------------------------------------------------------------------ where verbs hide


@pytest.mark.parametrize(
    ("first", "second", "verb"),
    [
        ("A dog chased a cat.", "A cat was chased by a dog.", "chased"),
        ("He chased them.", "They were chased by him.", "chased"),
        ("Her son chased this dog.", "This dog was chased by her son.", "chased"),
        ("The boy gave her to the king.", "The boy gave the king her.", "gave"),
        ("The boy gave her dog to me.", "The boy gave me her dog.", "gave"),
        ("A dog ate a cat.", "A cat was eaten by a dog.", None),  # unequal inflections
        ("The old man gave the girl a hat.", "The old man gave a hat to the girl.", None),  # an adjective is left over
        ("A dog slept.", "A cat sat.", None),
    ],
)
def test_the_shared_word_outside_noun_phrases(first, second, verb):
    found = find_verbs(Words.of(first), Words.of(second), {})
    assert (found and found[2]) == verb
    if found:
        assert [Words.of(t).words[i] for t, i in zip((first, second), found[:2], strict=True)] == [verb, verb]


def test_a_row_without_a_verb_is_named_with_its_cure(tmp_path):
    path = written(tmp_path, DATIVE + f"{ATE},{SAW}\n")
    with pytest.raises(ValueError, match=r"no single verb found in row 4, ppo.*eaten.*pass verbs="):
        read_primelm(path)


def test_given_verbs_are_found_whatever_stands_around_them(tmp_path):
    path = written(tmp_path, IRREGULAR)
    corpus = read_primelm(path, verbs={"ate": "eat", "Eaten": "eat", "saw": "see", "seen": "see"})
    assert corpus.verbs == ("eat", "see")
    assert parts(corpus, 0, "target", "ACT") == {"subject": "A fat maid", "verb": "saw", "post_verb": "him"}
    assert parts(corpus, 0, "prime", "PASS") == {"subject": "A cat", "verb": "eaten", "post_verb": "by a dog"}
    with pytest.raises(ValueError, match="no single verb found in row 1, tact"):
        read_primelm(path, verbs={"ate": "eat", "eaten": "eat"})


def test_given_verbs_allow_noun_phrases_of_any_length(tmp_path):
    text = DATIVE.replace("a queen", "an old queen").replace("a clown", "Bozo the clown")
    path = written(tmp_path, text)
    corpus = read_primelm(path, verbs=["loaned", "baked", "wrote"])
    assert parts(corpus, 0, "prime", "DO")["recipient"] == "Bozo the clown"
    assert parts(corpus, 0, "prime", "PO")["subject"] == "An old queen"
    assert corpus.text("s00000", "neutral").text == "An old queen loaned a harp."
    for verbs in ("loaned", [], {}):
        with pytest.raises(ValueError, match="expected surface words"):
            read_primelm(path, verbs=verbs)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("A boy gave a hat to a girl.", "A boy gave a hat a girl."),  # not exchanged
        ("A boy gave a hat with a girl.", "A boy gave a girl a hat."),
        ("A boy gave a hat to.", "A boy gave a hat."),
        ("A boy gave a hat to a girl.", "A man gave a girl a hat."),
    ],
)
def test_what_is_no_dative_alternation(first, second):
    one, two = Words.of(first), Words.of(second)
    assert dative_parts(one, two, (2, 2)) is None
    assert dative_parts(two, one, (2, 2)) is None


def test_a_theme_with_a_preposition_of_its_own():
    long = Words.of("A boy gave a ticket to the game to a girl.")
    short = Words.of("A boy gave a girl a ticket to the game.")
    found = dative_parts(long, short, (2, 2))
    assert found is not None
    assert found.neutral.text == "A boy gave a ticket to the game."
    start, stop = found.first["recipient"]
    assert long.text[start:stop] == "a girl"


# ------------------------------------------------------------------------------------------- bad files


def test_missing_sentences(dative, tmp_path):
    gaps = "a king lent a harp to a clown .,,the vet baked the bread .,x\na,b,nan,d\na b,c, .,d\n"
    path = written(tmp_path, DATIVE + gaps)
    with pytest.raises(
        ValueError, match=r"3 of 6 rows lack a sentence, the first are \[4, 5, 6\].*drop_incomplete=True"
    ):
        read_primelm(path)
    assert read_primelm(path, drop_incomplete=True) == dative


def test_nothing_but_gaps(tmp_path):
    path = written(tmp_path, "ppo,pdo,tpo,tdo\na,,c,d\n")
    with pytest.raises(ValueError, match="1 of 1 rows lack a sentence"):
        read_primelm(path, drop_incomplete=True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prime,target\na,b\n", r"columns \['prime', 'target'\]; expected.*found the forms \[\]"),
        ("ppo,pdo,tpo\na,b,c\n", r"found the forms \['po'\]"),
        ("ppo,pdo,px,tpo,tdo,tx\na,b,c,d,e,f\n", r"found the forms \['po', 'do', 'x'\]"),
        ("ppo,pdo,tpo,tdo\n", "no rows"),
        ("", "No columns"),
    ],
)
def test_files_of_another_kind(tmp_path, text, says):
    with pytest.raises(ValueError, match=says):
        read_primelm(written(tmp_path, text))


def test_max_pairs(tmp_path):
    path = written(tmp_path, DATIVE)
    corpus = read_primelm(path, max_pairs=2, seed=5)
    assert sorted(corpus.to_frame()["prime_verb"]) == ["loaned", "wrote"]
    assert corpus.seed == 5
    assert read_primelm(path, max_pairs=3) == read_primelm(path)
    with pytest.raises(ValueError, match="n_pairs=0"):
        read_primelm(path, max_pairs=0)


# --------------------------------------------------------------------------------------- the real file


@pytest.fixture(scope="module")
def core(data_folder):
    return read_primelm(data_folder / "primelm_core_dative.csv")


def test_core_dative_counts(core):
    assert len(core) == 15_000
    assert core.pairs["target"].nunique() == 1_500
    assert core.forms == ("PO", "DO")
    assert core.verbs == tuple(sorted(VERBS))
    assert not core.pairs["same_verb"].any()
    assert not core.pairs["shared_preposition"].any()
    assert core.sentences["neutral"].notna().all()


def test_core_dative_roles_rebuild_the_texts(core):
    for sentence, lemma in core.sentences[["sentence", "verb"]][::500].itertuples(index=False):
        po, do = core.text(sentence, "PO"), core.text(sentence, "DO")
        subject, verb, theme, preposition, recipient = map(
            po.part, ("subject", "verb", "theme", "preposition", "recipient")
        )
        assert po.text == f"{subject} {verb} {theme} {preposition} {recipient}."
        assert do.text == f"{subject} {verb} {recipient} {theme}."
        assert core.text(sentence, "neutral").text == f"{subject} {verb} {theme}."
        assert VERBS[lemma].past == verb


def test_core_dative_prepositions_agree_with_the_generator(core):
    frame = core.to_frame()
    table = frame.groupby("prime_verb")["prime_preposition"].agg(["nunique", "first"])
    assert (table["nunique"] == 1).all()
    assert {verb: VERBS[verb].preposition for verb in table.index} == table["first"].to_dict()


def test_core_dative_sample(core, tmp_path):
    sample = core.sample(222, seed=1)
    assert len(sample) == 222
    assert set(sample.to_frame()["prime_verb"].value_counts()) == {10, 11}
    assert sample.pairs["target"].nunique() > 150
    assert load_corpus(sample.save(tmp_path)) == sample
    assert not core.sample(222, seed=2).pairs.equals(sample.pairs)
