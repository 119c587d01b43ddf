"""Words, cuts, tokens and equal texts in every script: English as before, all others alike."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.tokenize import tokenize

from cdcda_flower.types import same_text
from cdcda_flower.words import first_words, is_loop, joined, tokens, words

# One clause a script, without digits, and how many words a reader counts in it.
CLAUSES = {
    "latin": ("the old station gets a naïve garden", 7),
    "cyrillic": ("весной город отремонтирует старый вокзал", 5),
    "greek": ("η πόλη θα επισκευάσει τον παλιό σταθμό", 7),
    "arabic": ("ستجدد البلدية محطة القطار القديمة", 5),
    "persian": ("شهرداری می‌خواهد ایستگاه را بسازد", 5),
    "devanagari": ("शहर पुराने स्टेशन की मरम्मत करेगा", 6),
    "korean": ("시는 봄에 오래된 역을 고친다", 5),
    "chinese": ("明年春天翻修旧火车站", 10),
    "japanese": ("古い駅をリノベーションする", 13),
    "thai": ("เมืองจะซ่อมสถานีเก่า", 16),
    "lao": ("ເມືອງຈະສ້ອມແປງ", 12),
    "khmer": ("ទីក្រុងនឹងជួសជុល", 9),
    "burmese": ("မြို့တော်ကပြင်မည်", 8),
    "tibetan": ("གྲོང་ཁྱེར་", 4),
    "emoji": ("😀🎉👨‍👩‍👧🇩🇪👍🏽❤️", 6),
}
SCRIPTS = st.sampled_from(sorted(CLAUSES))
# Texts of clauses of any scripts, with spaces, line ends and marks between them.
CLAUSE_TEXTS = st.lists(
    st.tuples(
        st.sampled_from([text for text, _ in CLAUSES.values()]), st.sampled_from(["", " ", ", ", "。", "\n", "! "])
    ),
    min_size=1,
    max_size=6,
).map(lambda parts: "".join(text + end for text, end in parts))
ASCII = st.text(st.characters(max_codepoint=127))


@pytest.mark.parametrize("script", CLAUSES)
def test_a_reader_counts_the_same_words(script: str) -> None:
    text, count = CLAUSES[script]
    assert len(words(text)) == count
    assert len(words(f"{text} {text}")) == len(words(f"{text}\n{text}")) == 2 * count


@given(ASCII)
def test_ascii_words_are_those_between_spaces(text: str) -> None:
    assert words(text) == text.split()
    assert joined(words(text)) == " ".join(text.split())


@given(ASCII.filter(lambda text: any(character.isalnum() for character in text)))
def test_ascii_tokens_are_those_of_rouge(text: str) -> None:
    assert list(tokens(text)) == tokenize(text, None)


@given(
    st.lists(st.sampled_from(["It's", "a", "well-known", "(tale)", "...", "#42", "http://x.org/?a=b", "“so”", "Acme™"]))
)
def test_english_words_with_their_marks_are_whole(parts: list[str]) -> None:
    assert words(" ".join(parts)) == parts
    assert joined(parts) == " ".join(parts)


@given(st.one_of(CLAUSE_TEXTS, st.text()), st.integers(0, 30))
def test_a_cut_text_is_a_prefix_of_so_many_words(text: str, limit: int) -> None:
    cut = first_words(text, limit)
    assert text.startswith(cut)
    assert words(cut) == words(text)[:limit]
    if len(words(text)) <= limit:
        assert cut == text


@given(st.lists(st.sampled_from(["so", "it", "goes", "well-known", "x."])), st.integers(1, 9))
def test_english_is_cut_where_it_was_before(parts: list[str], limit: int) -> None:
    assert first_words(" ".join(parts), limit) == " ".join(parts[:limit])


@given(SCRIPTS, SCRIPTS, st.integers(1, 5), st.integers(1, 5))
def test_lengths_add_up_in_mixed_texts(one: str, other: str, first: int, second: int) -> None:
    (text, count), (more, further) = CLAUSES[one], CLAUSES[other]
    assert len(words(" ".join([text] * first + [more] * second))) == first * count + second * further


def test_a_word_beside_characters_is_one_and_marks_are_none() -> None:
    assert words("我爱Python编程，很好。「是」") == ["我", "爱", "Python", "编", "程，", "很", "好。", "「是」"]
    assert words("great😀😀! #tag😀#two 😀@ann") == ["great", "😀", "😀!", "#tag", "😀", "#two", "😀", "@ann"]
    assert words("3 km 3 公里 第42页") == ["3", "km", "3", "公", "里", "第", "42", "页"]


@pytest.mark.parametrize("text", ["", " \n\t", "\u00a0\u3000", "\u200b\ufeff", "\u2028\u0085"])
def test_a_text_that_shows_nothing_has_no_words(text: str) -> None:
    assert words(text) == []
    assert tokens(text) == ()


@pytest.mark.parametrize("text", ["我爱你", "ฉันรักคุณ", "😀🎉", "コーヒーを飲む。"])
def test_characters_are_joined_without_spaces(text: str) -> None:
    assert joined(words(text)) == text


@given(CLAUSE_TEXTS, st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
def test_a_text_has_the_same_tokens_in_any_unicode_form(text: str, form: str) -> None:
    assert tokens(text)
    assert tokens(unicodedata.normalize(form, text)) == tokens(text)  # type: ignore[arg-type]


# Equal texts.


@given(st.one_of(CLAUSE_TEXTS, st.text()))
def test_equal_texts_are_equal_in_any_unicode_form_case_and_spacing(text: str) -> None:
    same = same_text(text)
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert same_text(unicodedata.normalize(form, text)) == same
    assert same_text(text.lower()) == same_text(text.casefold()) == same
    assert same_text(f"\u2028{text}\u00a0\ufeff") == same
    assert same_text(same) == same


@pytest.mark.parametrize(
    "other",
    [
        "Cafe\u0301 am Straße",
        "CAFÉ AM STRASSE",
        "Café\u00a0am\u2028Straße",
        "Café \u200bam\u200b Straße",
        "Café\u0085am\u3000Straße",
        "Ca\u00adfé am Stra\u200cße",
        "\ufeffCafé am Straße\n",
        "Ｃａｆé am Straße",
    ],
)
def test_what_readers_cannot_tell_apart_is_one_text(other: str) -> None:
    assert same_text(other) == same_text("Café am Straße")


@given(
    st.sampled_from(["old", "новый", "旧", "เก่า", "😀", "a"]),
    st.sampled_from(["new", "старый", "新", "ใหม่", "🎉", "b"]),
)
def test_other_texts_stay_apart(one: str, other: str) -> None:
    assert same_text(f"x {one}") != same_text(f"x {other}")
    assert same_text(one)


@given(st.text(max_size=20), st.text(min_size=1, max_size=12), st.integers(4, 9))
def test_what_ends_in_the_same_four_times_over_enough_is_a_loop(start: str, round_: str, times: int) -> None:
    text = start + round_ * times
    # The loop may stop anywhere within a round.
    for end in (text, text + round_[: len(round_) // 2]):
        assert is_loop(end, least=len(round_) * 4)


@given(st.text(alphabet="abc", max_size=40))
def test_a_loop_is_four_equal_rounds_of_the_least_length(text: str) -> None:
    ends = [text[len(text) - size :] for size in range(8, len(text) + 1)]
    rounds = any(end == end[: len(end) // 4] * 4 for end in ends if len(end) % 4 == 0)
    assert is_loop(text, least=8) == rounds


@pytest.mark.parametrize("text", ["", "no, no, no", "The service was good. " * 3, "ha" * 3])
def test_three_times_are_a_figure_of_speech(text: str) -> None:
    assert not is_loop(text, least=8)
