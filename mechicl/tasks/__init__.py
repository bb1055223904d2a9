"""Tasks: prompts with named roles, and the corpora they are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mechicl.lazy import lazy_names

if TYPE_CHECKING:
    from mechicl.tasks.chains import ChainTask
    from mechicl.tasks.classification import ClassificationTask
    from mechicl.tasks.corpus import PrimingCorpus, load_corpus
    from mechicl.tasks.datives import dative_corpus
    from mechicl.tasks.facts import capitals_task, sentiment_task
    from mechicl.tasks.fewshot import fewshot_prompts
    from mechicl.tasks.fewshot_prompt import FewShotPrompt, given_prompts
    from mechicl.tasks.fewshot_sources import load_task
    from mechicl.tasks.fewshot_task import FewShotTask
    from mechicl.tasks.hmm import HMMMixture, random_mixture
    from mechicl.tasks.hmm_prompts import sample_prompts
    from mechicl.tasks.mini_language import mini_tokenizer
    from mechicl.tasks.pooled_regression import PooledRegressionTask
    from mechicl.tasks.primelm import read_primelm
    from mechicl.tasks.prompts import Prompt, RoleText, tokenize
    from mechicl.tasks.regression import RegressionTask
    from mechicl.tasks.rules import rule_task
    from mechicl.tasks.speaker_pairs import speaker_corpus
    from mechicl.tasks.speakers import Speaker
    from mechicl.tasks.urns import UrnTask

# imported when first asked for: most of them bring pandas along
_HOME = {
    "ChainTask": "chains",
    "ClassificationTask": "classification",
    "PooledRegressionTask": "pooled_regression",
    "UrnTask": "urns",
    "FewShotPrompt": "fewshot_prompt",
    "FewShotTask": "fewshot_task",
    "HMMMixture": "hmm",
    "capitals_task": "facts",
    "fewshot_prompts": "fewshot",
    "given_prompts": "fewshot_prompt",
    "load_task": "fewshot_sources",
    "random_mixture": "hmm",
    "rule_task": "rules",
    "sample_prompts": "hmm_prompts",
    "sentiment_task": "facts",
    "Prompt": "prompts",
    "RoleText": "prompts",
    "tokenize": "prompts",
    "PrimingCorpus": "corpus",
    "load_corpus": "corpus",
    "dative_corpus": "datives",
    "mini_tokenizer": "mini_language",
    "read_primelm": "primelm",
    "RegressionTask": "regression",
    "Speaker": "speakers",
    "speaker_corpus": "speaker_pairs",
}
__all__ = sorted(_HOME)
__getattr__, __dir__ = lazy_names(__name__, _HOME)
