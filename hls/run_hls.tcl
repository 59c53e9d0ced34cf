# Vitis HLS: vitis_hls -f run_hls.tcl "part=xcu250-figd2104-2L-e clock=5 steps=csim,csynth,cosim,export"
#
# part   the device, clock   the period in ns, steps   what to run, in the order csim, csynth, cosim, export.

array set option {part xcu250-figd2104-2L-e clock 5 steps csim,csynth,cosim,export}
foreach arg [split [join $argv " "]] {
    regexp {^(part|clock|steps)=(\S+)$} $arg whole key value
    if {[info exists key]} {
        set option($key) $value
        unset key
    }
}
set steps [split $option(steps) ","]
foreach step $steps {
    if {[lsearch -exact {csim csynth cosim export} $step] < 0} {
        error "unknown step '$step': steps are csim, csynth, cosim, export"
    }
}

set here [file normalize [file dirname [info script]]]
open_project -reset bittrue_hls
set_top bittrue_top
add_files [file join $here top.cpp] -cflags "-std=c++14 -I$here"
add_files -tb [file join $here tb.cpp] -cflags "-std=c++14 -I$here"
open_solution -reset solution -flow_target vivado
set_part $option(part)
create_clock -period $option(clock) -name default

foreach step {csim csynth cosim export} {
    if {[lsearch -exact $steps $step] < 0} {
        continue
    }
    switch $step {
        csim { csim_design -argv [file join $here vectors] }
        csynth { csynth_design }
        cosim { cosim_design -argv [file join $here vectors] }
        export { export_design -format ip_catalog }
    }
}
exit
