from undiffuse.cli import main

main()
