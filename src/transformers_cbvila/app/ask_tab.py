"""The tab in which questions about a picture are answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from . import html
from .answering import Answered, Answering
from .components import EVENT, explained, live_html, picture_input, reading_event, saying_what_is_wrong, still_html
from .pictures import AskedPicture, Question

LEAD = (
    "Ask about a picture: the model writes an answer, and heat maps show where each word of the question looked "
    "for it. Press another answer to see what would speak for that one."
)
# Of a picture that is not among the examples.
QUESTIONS = ("what color is the circle?", "how many circles are there?", "is there a circle?")


class AskTab(NamedTuple):
    """What other tabs are linked with.

    Args:
        picture: The picture.
        answer: What answers the question about a picture that was brought here, with its inputs and outputs.
        start: What fills the tab when the page is opened, likewise.
    """

    picture: Any
    answer: tuple[Any, list[Any], list[Any]]
    start: tuple[Any, list[Any], list[Any]]


def answers_html(answered: Answered, question: str, right: str | None = None) -> str:
    """Returns the answers with their probabilities, and whether the first one is right if that is known."""
    rows = [(answer.text, answer.probability) for answer in answered.answers]
    parts = [html.heading(f"“{question.strip()}”"), html.bars(rows, answered.explained, "Answers")]
    if right is not None:
        best = answered.answers[0].text
        parts.append(
            html.note("✓ That is right." if best == right else f"✗ The right answer is “{right}”.", "verdict")
        )
    return "".join(parts)


def maps_html(answered: Answered) -> str:
    """Returns a heat map for each word of the question, of the answer that is explained."""
    title = f"What speaks for “{answered.explained}”"
    return html.heading(title) + html.heat_maps(answered.explanation)


def questions_html(questions: Sequence[str]) -> str:
    """Returns questions that can be pressed."""
    buttons = "".join(
        f'<li><button type="button" class="chip" data-text="{text}">{text}</button></li>'
        for text in map(html.escape, questions)
    )
    return f'<ul class="chips" aria-label="Questions to ask">{buttons}</ul>'


def right_answer(asked: Sequence[AskedPicture], number: int | None, question: str) -> str | None:
    """Returns the right answer to a question about an example; None if it is not known."""
    known: list[Question] = [] if number is None else asked[number].questions
    return next((one.answer for one in known if one.text == question.strip()), None)


def question_for_another(asked: Sequence[AskedPicture], question: str) -> str:
    """Returns what to ask about a picture of one's own: the same, unless it was a question about an example."""
    of_examples = {own.text for one in asked for own in one.questions}
    return QUESTIONS[0] if not question.strip() or question.strip() in of_examples else question


def add_ask_tab(gr: Any, answering: Answering, asked: Sequence[AskedPicture]) -> AskTab:
    """Adds what is in the tab."""
    explained(gr, LEAD)
    number = gr.State(None)
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            picture = picture_input(gr, "ask-picture")
            examples = live_html(gr, "choices.js", "ask-examples", _examples_html(asked))
        with gr.Column(scale=3):
            question = gr.Textbox(
                "",
                label="What do you want to know?",
                placeholder="such as: what color is the circle?",
                submit_btn="Ask",
                elem_id="ask-question",
            )
            questions = live_html(gr, "choices.js", "ask-questions", questions_html(QUESTIONS))
            answers = live_html(gr, "choices.js", "ask-answers")
            maps = still_html(gr, name="ask-maps")
    shown, query = [answers, maps], [picture, question, number]

    def said(image: Any, question: str, number: int | None, explained: str | None = None) -> tuple[str, str]:
        answered = answering.answer(image, question, explained)
        return answers_html(answered, question, right_answer(asked, number, question)), maps_html(answered)

    answer = saying_what_is_wrong("")(said)

    @saying_what_is_wrong("")
    def explain_other(image: Any, question: str, number: int | None, event: Any) -> tuple[str, str]:
        return said(image, question, number, event.text)

    def example(chosen: int) -> tuple[Any, ...]:
        own = [one.text for one in asked[chosen].questions]
        return asked[chosen].picture.image, own[0], chosen, questions_html(own), _examples_html(asked, chosen)

    def choose(event: Any) -> tuple[Any, ...]:
        return example(int(event.number))

    def forget_example(question: str) -> tuple[Any, ...]:
        return question_for_another(asked, question), None, questions_html(QUESTIONS), _examples_html(asked)

    def take_question(event: Any) -> str:
        return event.text

    chosen_outputs = [picture, question, number, questions, examples]
    question.submit(answer, query, shown, **EVENT)
    questions.click(reading_event(gr, take_question), None, [question], **EVENT).then(answer, query, shown, **EVENT)
    examples.click(reading_event(gr, choose), None, chosen_outputs, **EVENT).then(answer, query, shown, **EVENT)
    answers.click(reading_event(gr, explain_other), query, shown, **EVENT)
    picture.upload(forget_example, [question], chosen_outputs[1:], **EVENT).then(answer, query, shown, **EVENT)

    def answer_brought(image: Any, question: str) -> tuple[Any, ...]:
        question, *others = forget_example(question)
        return question, *others, *answer(image, question, None)

    def start() -> tuple[Any, ...]:
        filled = example(0)
        return *filled, *answer(filled[0], filled[1], filled[2])

    brought = (answer_brought, [picture, question], [*chosen_outputs[1:], *shown])
    return AskTab(picture, brought, (start, [], [*chosen_outputs, *shown]))


def _examples_html(asked: Sequence[AskedPicture], chosen: int | None = None) -> str:
    cards = [html.Card(place, one.picture.image, one.picture.name) for place, one in enumerate(asked)]
    return html.cards(cards, "Pictures to ask about", chosen)
