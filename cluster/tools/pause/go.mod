module tickwheel.io/cluster/pause

go 1.26.0
