"""The tiny model's own tokenizer: one token a word, one token a digit, learned from text of the train split.

Numbers are the heart of a record, so `7.4` is three tokens and the model can copy it digit by digit. A unit such as
`10*3/ul` stays one token. Any other Hugging Face model brings its own tokenizer and uses only `EVENT` from here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

EVENT = "<|event|>"  # stands for the events of a record; each event then takes one position
SPECIAL = ["<|pad|>", "<|start|>", "<|end|>", "<|unknown|>", "<|user|>", "<|assistant|>", EVENT]
DIGITS = [*"0123456789", ".", "-"]
CHAT_TEMPLATE = (
    "<|start|>{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ message['content'] }}<|assistant|>"
    "{% else %}{{ message['content'] }}<|end|>{% endif %}{% endfor %}"
)


def train_tokenizer(texts: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """Learn the `size` most frequent words of `texts`; digits, the point and the sign are always in."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<|unknown|>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex(r"[?,;:()]"), "isolated"),
            pre_tokenizers.Split(Regex(r"[-0-9.](?=[0-9.]*$)"), "isolated"),
        ]
    )
    trainer = trainers.WordLevelTrainer(vocab_size=size, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(itertools.chain(texts, DIGITS * 1000), trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in SPECIAL])
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(Regex(r"^"), " "),
            decoders.Fuse(),
            decoders.Replace(Regex(r"(?<= [-0-9.]) (?=[0-9.](?: |$))"), ""),
            decoders.Replace(Regex(r" (?=[,:;])"), ""),
            decoders.Strip(" ", 1, 0),
        ]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        bos_token="<|start|>",
        eos_token="<|end|>",
        unk_token="<|unknown|>",
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def prompt_parts(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int], list[int]]:
    """Token ids before the events, between the events and the question, and between the question and the answer.

    Read off the tokenizer's own chat template, so that a Vicuna or a Qwen is asked in the way it was taught.
    """
    mark = "\u241f"
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": f"{mark}\n{mark}"}], tokenize=False, add_generation_prompt=True
    )
    before, between, after = text.split(mark)

    def ids(piece: str) -> list[int]:
        return tokenizer(piece, add_special_tokens=False)["input_ids"] if piece else []

    return ids(before), ids(between), ids(after)
