*** Settings ***
Documentation     robot --variable MCUMGRX_DEVICE:serial:/dev/ttyACM0 --variable IMAGE:app.bin --variable VERSION:1.1.0
...               device.robot
Library           mcumgrx_robot

*** Test Cases ***
It Answers
    ${answer}=    Echo    hello
    Should Be Equal    ${answer}    hello

It Takes The Release
    ${summary}=    Update    ${IMAGE}    soak_s=${0.2}    rollback=${True}
    Log    ${summary}    console=True
    Running Version Should Be    ${VERSION}

It Keeps A File
    ${content}=    Evaluate    b'certificate'
    Put File    ${content}    /lfs1/cert.pem
    ${read}=    Get File    /lfs1/cert.pem
    Should Be Equal    ${read}    ${content}
