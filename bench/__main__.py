# A measured process imports this module, too, so nothing is imported that would count as its memory.
if __name__ == "__main__":
    from bench.cli import main

    main(prog_name="python -m bench")
