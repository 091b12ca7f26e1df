"""How the embedded pair was made: a target and an assistant with another tokenizer, from the Python files of a machine.

Run it as `python -m recipes.pycode COMMAND --work FOLDER` from the root of the repository; README.md beside this
folder walks through it. Everything a step makes lies under FOLDER, every step can be killed and started again, and
no step needs anything but Python files and a CPU.
"""
