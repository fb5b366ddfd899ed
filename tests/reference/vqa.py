"""What the two official scorers of short answers make of 700 random and awkward answers.

    python tests/reference/vqa.py vqaEval.py m4c_evaluator.py

runs the scorers' own code: PythonEvaluationTools/vqaEvaluation/vqaEval.py of https://github.com/GT-Vision-Lab/VQA at
a013f0043c1e2cdc995922dfe257f7149aa9af06 (its `print` statements, which are Python 2, are dropped), and
llava/eval/m4c_evaluator.py of https://github.com/haotian-liu/LLaVA at c121f0432da27facab705978f83c4ada465e46fd.
Writes tests/reference/vqa.jsonl, an array a case: the answer, the annotators' answers as [times, answer], the answer
as each scorer normalizes it, its score by each.
"""

import json
import pathlib
import random
import re
import sys
import types

HERE = pathlib.Path(__file__).parent

WORDS = (
    "a an the A The yes no Yes NO none zero one two ten Ten red blue grey nokia Nokia dog dogs cat's John's it's its "
    "dont don't Dont couldnt've couldn'tve oclock o'clock let's shes she's yall'd've ow's'at 'ow'sat somebody'd Im I'm "
    "3 3.5 .5 5. 1,000 1,000.50 10,20 -5 $5 50% 12:00 12/25 u.s.a. U.S.A. coca-cola coca www.x.com c++ c# r&b @home "
    "ΟΔΟΣ STRASSE straße İstanbul é café ٣ ٣.٥ ١,٢ Ⅳ ½ ² 红 - / . ? ! , ; _ ` ' \" [x] {y} (z) <w> = + \\ :"
).split(" ")
SPACES = [" "] * 12 + ["  ", "\n", "\t", "\r\n", "\x0b", "\x1d", "\x85", "\xa0", "\u2003", "\u3000", "\u200b"]
MARKS = ";/[]\"{}()=+\\_-><@`,?!.:'*&#$%"


def official(vqa_path, m4c_path):
    text = pathlib.Path(vqa_path).read_text()
    vqa = types.ModuleType("vqa")
    exec(re.sub(r'^(\s*)print ".*"$', r"\1pass", text, flags=re.M), vqa.__dict__)
    m4c = types.ModuleType("m4c")
    source = pathlib.Path(m4c_path).read_text().replace("from tqdm import tqdm", "tqdm = list")
    exec(source, m4c.__dict__)
    return vqa.VQAEval, m4c.TextVQAAccuracyEvaluator()


def by_vqa(VQAEval, answer, given):
    rows = [{"answer": text, "answer_id": number, "answer_confidence": "yes"} for number, text in enumerate(given)]
    annotation = {"answers": rows, "question_type": "q", "answer_type": "other"}
    data = types.SimpleNamespace(qa={1: annotation}, getQuesIds=lambda: [1])
    scorer = VQAEval(data, types.SimpleNamespace(qa={1: {"answer": answer}}))
    scorer.updateProgress = lambda progress: None
    scorer.setEvalQA = lambda question, accuracy: scorer.evalQA.update({question: accuracy})
    scorer.evaluate()
    clean = answer.replace("\n", " ").replace("\t", " ").strip()
    return scorer.processDigitArticle(scorer.processPunctuation(clean)), scorer.evalQA[1]


def text(draw):
    count = draw.choice([0, 1, 1, 1, 1, 2, 2, 3, 4])
    made = "".join(draw.choice(WORDS) + draw.choice(SPACES) for _ in range(count))
    return made if draw.random() < 0.3 else made.strip()


def varied(draw, answer):
    """The answer with a change that scorers may or may not undo."""
    change = draw.randrange(12)
    if change == 0:
        return answer.upper()
    if change == 1:
        return answer + draw.choice(MARKS)
    if change == 2:
        return draw.choice(MARKS) + answer
    if change == 3:
        return draw.choice(["the ", "a ", "A ", "The answer is "]) + answer
    if change == 4:
        return answer.replace(" ", draw.choice(["-", "_", "\n", "\t", "  ", ", ", " ,"]))
    if change == 5:
        return answer.replace("'", "")
    if change == 6:
        return draw.choice(SPACES) + answer + draw.choice(SPACES)
    if change == 7:
        return answer + "." * draw.choice([1, 2, 3])
    if change == 8:
        return "".join(character + draw.choice(["", "", "", draw.choice(MARKS)]) for character in answer)
    if change == 9:
        return answer.replace("1", "one ").replace("10", "ten")
    return answer


def case(draw):
    base = text(draw)
    left, given = 10, []
    if draw.random() < 0.25:
        given = [base] * 10
    else:
        while left:
            times = min(left, draw.choice([1, 1, 1, 2, 2, 3, 4, 5]))
            given += [draw.choice([text(draw), varied(draw, base), base])] * times
            left -= times
    return varied(draw, draw.choice(given + [base])), given


def main():
    VQAEval, textvqa = official(*sys.argv[1:])
    draw = random.Random(8)
    cases = [case(draw) for _ in range(660)]
    g = ["nokia"] * 8 + ["toshiba", "samsung"]
    for answer in ["nokia", "The answer is nokia", "Answer: nokia", "toshiba", "Nokia.", "", "nokia\nphone", "no\tkia"]:
        cases += [(answer, g), (answer, ["nokia"] * 10)]
    cases += [(answer, ["A"] * 6 + ["B"] * 4) for answer in ["A", "(A)", "A)", "a.", "", "B", "(B)", "the"]]
    cases += [(".".join("x" * 45), ["x" * 45] * 5 + [".".join("x" * 45)] * 5), ("." * 40, ["........"] * 4 + ["x"] * 6)]
    cases += [(answer, ["1,000"] * 3 + ["1000"] * 2 + ["1 000"] * 5) for answer in ["1,000", "1000", "1 000", "1,000-2"]]
    cases += [("1,000-2 (x)", ["10002 x"] * 5 + ["1000 2 x"] * 5), ("yes, it-is", ["yes it is"] * 4 + ["yes itis"] * 6)]
    lines = []
    for answer, given in cases:
        counted = [[given.count(text), text] for text in dict.fromkeys(given)]
        normal, score = by_vqa(VQAEval, answer, given)
        other = textvqa.answer_processor(answer)
        other_score = textvqa._compute_answer_scores(given).get(other, 0.0)
        lines.append(json.dumps([answer, counted, normal, other, round(score, 12), round(other_score, 12)], ensure_ascii=False))
    (HERE / "vqa.jsonl").write_text("\n".join(lines) + "\n")


main()
