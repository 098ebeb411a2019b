from tickwheel_operator.runtime.main import main

main()
