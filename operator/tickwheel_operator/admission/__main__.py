import sys

from tickwheel_operator.admission.policies import main

sys.exit(main())
