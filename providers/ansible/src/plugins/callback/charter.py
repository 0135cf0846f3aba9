# What happens in a run, one JSON object in each line of the file that CHARTER_EVENTS names. Every text is cut, and so is the whole: what a
# task says may be of any size.

import json
import os

from ansible.errors import AnsibleError
from ansible.executor.task_executor import TaskExecutor
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
    name: charter
    type: stdout
    short_description: Charter's own
    description: Events as lines of JSON, for Charter to read.
"""

TEXT = 2000
LONGEST = 1000000
ITEMS = 200
# What is written in full; beyond it only what became of each task.
WHOLE = 8 * 1024 * 1024

if not getattr(TaskExecutor.run, "charter", False):
    raise AnsibleError("the inventory was not read by Charter's plugin")


def secrets():
    """What may not be told, by its name: whole, and line by line where a line tells something."""
    with open(os.path.join(os.environ["CHARTER_GIVEN"], "secrets.json"), encoding="utf-8") as file:
        named = json.load(file)
    texts = [(text, name) for name, text in named.items()]
    texts += [(line, name) for name, text in named.items() for line in text.split("\n") if len(line) >= 8]
    # The longest first: one may hold another.
    return sorted({(text.strip(), "<%s>" % name) for text, name in texts if text.strip()}, key=lambda one: -len(one[0]))


SECRETS = secrets()


def cut(value, depth=0):
    """A value that is small enough, and tells no secret."""
    if isinstance(value, str):
        # What is cut here is far beyond what is told.
        value = value[:LONGEST]
        for text, name in SECRETS:
            value = value.replace(text, name)
        return value if len(value) <= TEXT else value[:TEXT] + "…"
    if isinstance(value, bool) or value is None or isinstance(value, int):
        return value
    if isinstance(value, dict) and depth < 5:
        return {cut(str(key)): cut(one, depth + 1) for key, one in list(value.items())[:ITEMS]}
    if isinstance(value, (list, tuple)) and depth < 5:
        return [cut(one, depth + 1) for one in list(value)[:ITEMS]]
    return cut(str(value))


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "charter"

    def __init__(self):
        super().__init__()
        self.file = open(os.environ["CHARTER_EVENTS"], "a", encoding="utf-8")
        self.written = 0
        self.tasks = {}

    def write(self, event, **rest):
        line = json.dumps({"event": event, **rest}, ensure_ascii=False)
        self.written += len(line)
        self.file.write(line.encode("utf-8", "replace").decode("utf-8") + "\n")
        self.file.flush()

    def gone(self, name):
        """Takes files away that were given for this run: nobody needs them any more."""
        folder = os.environ.get(name)
        for root, _, files in os.walk(folder or ""):
            for file in files:
                os.unlink(os.path.join(root, file))

    def v2_playbook_on_start(self, playbook):
        # They were read when the command began.
        self.gone("CHARTER_GIVEN")
        self.write("start")

    def v2_playbook_on_play_start(self, play):
        self.write("play", name=cut(play.get_name()))

    def task(self, task):
        number = self.tasks.get(task._uuid)
        if number is None:
            number = self.tasks[task._uuid] = len(self.tasks)
            self.write("task", task=number, name=cut(task.get_name()), action=cut(task.action))
        return number

    def v2_playbook_on_task_start(self, task, is_conditional):
        self.task(task)

    def v2_playbook_on_handler_task_start(self, task):
        self.task(task)

    def v2_runner_on_start(self, host, task):
        self.write("begin", host=host.get_name(), task=self.task(task))

    def result(self, became, result, ignored=False):
        said = getattr(result, "result", None) or result._result
        one = self.one(said, became == "failed")
        # The aggregate of a loop says less than its items.
        items = said.get("results")
        if isinstance(items, list) and items and all(isinstance(item, dict) for item in items):
            one["items"] = [self.one(item) for item in items[:ITEMS]]
            one["more"] = len(items) - len(one["items"])
        host = getattr(result, "host", None) or result._host
        task = getattr(result, "task", None) or result._task
        self.write("result", host=host.get_name(), task=self.task(task), became=became, ignored=ignored, **one)

    def one(self, said, failed=False):
        one = {
            "changed": said.get("changed") is True,
            "skipped": said.get("skipped") is True,
            "failed": failed or said.get("failed") is True,
            "hidden": "censored" in said,
            "refused": said.get("charter_refused") is True,
            # A condition, or a list without items: it would not run either way.
            "reason": cut(said.get("skip_reason") or said.get("skipped_reason")),
        }
        if "censored" not in said and self.written < WHOLE:
            one["message"] = cut(said.get("msg"))
            one["diff"] = cut(said.get("diff"))
            if one["failed"]:
                one["stderr"] = cut(said.get("module_stderr") or said.get("stderr"))
        return one

    def v2_runner_on_ok(self, result):
        self.result("ok", result)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self.result("failed", result, ignored=bool(ignore_errors))

    def v2_runner_on_skipped(self, result):
        self.result("skipped", result)

    def v2_runner_on_unreachable(self, result):
        self.result("unreachable", result)

    def v2_playbook_on_no_hosts_matched(self):
        self.write("no-hosts")

    def v2_playbook_on_stats(self, stats):
        self.gone("CHARTER_KEYS")
        hosts = {host: stats.summarize(host) for host in sorted(stats.processed)}
        self.write("end", hosts=hosts, outputs=cut(getattr(stats, "custom", {}).get("_run", {})))
