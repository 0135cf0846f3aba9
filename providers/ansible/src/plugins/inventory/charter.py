# Ansible reads inventories before anything else: what a member's Charter lets a playbook do is settled here, in the process that runs it
# and in the ones that it forks. A playbook can't start without this file: it alone reads the inventory.
#
# CHARTER_GUARD names a JSON file: modules, lookups and connections that may be used, and folders whose files may be read here or not.

import fnmatch
import json
import os

import ansible
from ansible import constants, context
from ansible.errors import AnsibleError
from ansible.executor.task_executor import TaskExecutor
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.inventory.yaml import DOCUMENTATION as YAML_DOCUMENTATION
from ansible.plugins.inventory.yaml import InventoryModule as YamlInventory
from ansible.plugins.loader import connection_loader, lookup_loader

DOCUMENTATION = YAML_DOCUMENTATION.replace("name: yaml", "name: charter", 1)

with open(os.environ["CHARTER_GUARD"], encoding="utf-8") as file:
    GUARD = json.load(file)


def short(name):
    """A plugin's name without the collection that every installation has."""
    for collection in ("ansible.builtin.", "ansible.legacy."):
        if name.startswith(collection):
            return name[len(collection):]
    return name


def whole(name):
    """A plugin's name with its collection, or a pattern of such names. `*` alone is every one."""
    if name == "*":
        return name
    return short(name) if "." in short(name) else "ansible.builtin." + short(name)


def given(kind, name):
    """Whether a plugin of this kind may be used. What works on this machine itself has to be named, and not by a pattern."""
    rules = [whole(rule) for rule in GUARD[kind]]
    if whole(name) in rules:
        return True
    return short(name) not in GUARD["here"] and any(fnmatch.fnmatchcase(whole(name), rule) for rule in rules)


def guarded_run(run):
    def guarded(self):
        action = self._task.resolved_action or self._task.action
        if not given("modules", action):
            why = "%s is none of ansible.modules in charter.toml: add it to allow it" % short(action)
            return {"failed": True, "changed": False, "msg": why, "charter_refused": True}
        # A look changes nothing. What says that it runs for real even then is not run.
        if context.CLIARGS.get("check") and self._task.check_mode is False and not GUARD["run_in_check"]:
            return {"skipped": True, "changed": False, "msg": "it would run for real in check mode"}
        return run(self)

    guarded.charter = True
    return guarded


def guarded_loader(loader, kind):
    get = loader.get_with_context

    def guarded(name, *args, **kwargs):
        if not given(kind, name):
            raise AnsibleError("%s is none of the %s that charter.toml allows" % (name, kind))
        return get(name, *args, **kwargs)

    loader.get_with_context = guarded


def within(path, folders):
    return any(path == folder or path.startswith(folder + os.sep) for folder in folders)


def guarded_read(method):
    def guarded(self, path, *args, **kwargs):
        real = os.path.realpath(os.path.join(self.get_basedir(), os.fsdecode(path)))
        if not within(real, GUARD["roots"]) or within(real, GUARD["hidden"]):
            raise AnsibleError("%s is no file of the playbook's" % path)
        return method(self, path, *args, **kwargs)

    return guarded


def sandboxed():
    """Templates of Ansible before 2.19 reach everything in its process: they are put into Jinja's sandbox, as later ones are."""
    import ansible.template as template
    from jinja2.sandbox import SandboxedEnvironment

    environment = getattr(template, "AnsibleEnvironment", None)
    if environment is None or issubclass(environment, SandboxedEnvironment):
        return
    for name, value in vars(SandboxedEnvironment).items():
        if not name.startswith("__"):
            setattr(environment, name, value)
    environment.binop_table = dict(SandboxedEnvironment.default_binop_table)
    environment.unop_table = dict(SandboxedEnvironment.default_unop_table)


if not getattr(TaskExecutor.run, "charter", False):
    # Its own files, and what it writes on its way.
    own = [os.path.dirname(ansible.__file__), constants.DEFAULT_LOCAL_TMP]
    GUARD["roots"] = [os.path.realpath(root) for root in GUARD["roots"] + own]
    GUARD["hidden"] = [os.path.realpath(path) for path in GUARD["hidden"]]
    TaskExecutor.run = guarded_run(TaskExecutor.run)
    DataLoader.get_real_file = guarded_read(DataLoader.get_real_file)
    DataLoader._get_file_contents = guarded_read(DataLoader._get_file_contents)
    guarded_loader(connection_loader, "connections")
    guarded_loader(lookup_loader, "lookups")
    sandboxed()


class InventoryModule(YamlInventory):
    NAME = "charter"
